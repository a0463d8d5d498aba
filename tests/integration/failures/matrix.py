"""The failure matrix: what happens to a pool's replicas, and what becomes of requests.

The rows are tested by `test_matrix` and shown in docs/operations.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One kind of failure, in words; `name` is what the test calls it."""

    name: str
    failure: str
    becomes: str
    lost: str
    shows: str


MATRIX = (
    Row(
        "crash",
        "a replica ends while it works",
        "its requests are repeated on another one; probes take it out at once",
        "none",
        "results `response_lost`, `connect_failed`; state `not_ready`",
    ),
    Row(
        "hang",
        "a replica accepts and never answers, probes included",
        "probes take it out and its requests are repeated, long before their own time-out",
        "none",
        "result `response_lost`; state `not_ready`",
    ),
    Row(
        "stuck",
        "inference never answers, probes are good",
        "each request waits for `timeouts.response`, then goes elsewhere; three in a row eject",
        "none",
        "result `timeout`; state `ejected`; ejections",
    ),
    Row(
        "slow",
        "a replica takes many times as long as the others",
        "it is set aside for a pause that grows, at most `max_share` of the replicas",
        "none",
        "state `slow`; ejections",
    ),
    Row(
        "reset",
        "the connection breaks within a short answer",
        "nothing of it has been passed on: repeated on another replica; three in a row eject",
        "none",
        "result `response_lost`; state `ejected`; ejections",
    ),
    Row(
        "cut",
        "the connection breaks within a stream",
        "so does the client's: a cut answer never looks complete, and is not repeated",
        "the streams that broke",
        "outcome `upstream_failed`; state `ejected`; ejections",
    ),
    Row(
        "busy",
        "a replica answers 429 or 503",
        "its requests are repeated elsewhere; three in a row eject it until it answers one",
        "none",
        "result `rejected`; state `ejected`; ejections",
    ),
    Row(
        "refused",
        "nobody listens at a replica's address",
        "probes keep it out; requests that tried it before go elsewhere",
        "none",
        "state `not_ready`",
    ),
    Row(
        "half",
        "half of the replicas fail",
        "they are ejected, the others have the traffic",
        "none",
        "state `ejected`; ejections",
    ),
    Row(
        "all",
        "all replicas fail, and there is no function",
        "all are used (panic), so that the first that recovers is found, and then preferred",
        "those sent until one recovers",
        "outcome `upstream_failed`; `router_pool_panicking` 1",
    ),
    Row(
        "all with function",
        "all replicas fail, and there is a function",
        "the function has the traffic until a replica works again",
        "none",
        "reasons `fallback`, then `no_endpoint`; state `ejected`; `router_breaker_open` 1",
    ),
    Row(
        "flapping",
        "a replica works and fails in turn",
        "it is left alone for longer each time",
        "none",
        "ejections; state `ejected` for longer and longer",
    ),
)


def table() -> str:
    """The matrix in Markdown."""
    rows = [f"| {row.failure} | {row.becomes} | {row.lost} | {row.shows} |" for row in MATRIX]
    return "\n".join(
        ["| failure | what happens | requests lost | shows as |", "|---|---|---|---|", *rows]
    )
