"""The bundled sample log: an hour of made-up traffic for the models of the demo configuration.

Written by `python -m router.replay.sample OUT.jsonl.gz`; the same bytes every time. Nothing in it
was measured.
"""

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from router.telemetry.logs import AccessRecord, encode_line

HOUR_S = 3600.0
_BEGAN_AT = 1_790_000_000.0
"""Seconds since 1970."""
_SEED = 20261101


class _Traffic(NamedTuple):
    """One model's arrivals: a rate and a service time, and a payload's median and largest size."""

    model: str
    per_s: tuple[tuple[float, float], ...]
    service_s: float
    payload_bytes: int
    most_bytes: int


_TRAFFIC = (
    # Sporadic, with two bursts; a few files are too large for a function.
    _Traffic(
        "magika",
        ((0, 0.4), (1200, 8.0), (1260, 0.4), (2700, 12.0), (2760, 0.4)),
        0.009,
        4_000,
        9_000_000,
    ),
    # Quiet, then a quarter of an hour in which a replica pays.
    _Traffic("minilm", ((0, 0.5), (1500, 14.0), (2100, 0.5)), 0.028, 600, 20_000),
    # Steady work that fills most of a replica, with a pause.
    _Traffic("textdet", ((0, 1.6), (2000, 0.05), (2600, 2.2)), 0.19, 300_000, 2_500_000),
)


def lines() -> Iterator[bytes]:
    """The log, line by line, in the order in which requests ended."""
    rng = Random(_SEED)  # noqa: S311  made-up traffic
    entries = sorted(entry for traffic in _TRAFFIC for entry in _requests(traffic, rng))
    for number, (ended_at, took_s, payload_bytes, model) in enumerate(entries):
        yield encode_line(_record(f"sample-{number:05d}", model, payload_bytes, took_s), ended_at)


def _requests(traffic: _Traffic, rng: Random) -> Iterator[tuple[float, float, int, str]]:
    at = 0.0
    while (at := at + rng.expovariate(_rate(traffic, at))) < HOUR_S:
        took_s = traffic.service_s * rng.lognormvariate(0.0, 0.15)
        size = traffic.payload_bytes * rng.lognormvariate(0.0, 1.2)
        if rng.random() < 0.002:
            size = traffic.most_bytes
        payload_bytes = int(min(size, traffic.most_bytes))
        yield _BEGAN_AT + at + took_s, took_s, payload_bytes, traffic.model


def _rate(traffic: _Traffic, at: float) -> float:
    return [per_s for since, per_s in traffic.per_s if since <= at][-1]


def _record(request_id: str, model: str, payload_bytes: int, took_s: float) -> AccessRecord:
    took_ms = round(took_s * 1e3, 1)
    return AccessRecord(
        request_id=request_id,
        protocol="oip",
        model=model,
        version=None,
        tenant=None,
        payload_bytes=payload_bytes,
        backend="pool",
        reason="rule",
        rule="sample",
        endpoint=f"{model}-1",
        attempts=1,
        status=200,
        outcome="ok",
        cold_start=None,
        total_ms=took_ms,
        upstream_ms=took_ms,
        queue_ms=0.0,
        deadline_ms=None,
        cost_usd=0.0,
    )


def content() -> bytes:
    """The file."""
    return gzip.compress(b"".join(lines()), compresslevel=9, mtime=0)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(content())
