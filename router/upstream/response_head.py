"""The head of an answer and which of its headers belong to the connection, not to the answer."""

from typing import NamedTuple

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
EVENT_STREAMS = ("text/event-stream", "application/vnd.amazon.eventstream")
MAX_HEADERS = 128


class ResponseHead(NamedTuple):
    """The head of the final answer: end-to-end headers only, names spelt as received.

    `content_length` is the length of the body that follows, or None when only its end will tell.
    An event stream must be passed on as it comes, not collected.
    """

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    content_length: int | None
    is_event_stream: bool


def is_hop_by_hop(key: str) -> bool:
    """Whether a header (lower-case name) is for this connection only."""
    return key in HOP_BY_HOP or key.startswith("proxy-")
