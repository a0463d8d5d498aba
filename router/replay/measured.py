"""A world file from a gateway's own access log: what requests really took, by model and backend.

Durations become quantiles of what was seen. Start-ups are not in a log, a running gateway tells
them; prices and limits are left to the configuration and the default world. Simulates nothing.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import numpy as np
import yaml

from router.replay.arrivals import Dropped

_QUANTILES = 41
_KEPT = 20_000
"""Durations kept of each kind; of more, a uniform sample."""
_FEWEST = 20
MAX_MODELS = 1000


class _Line(msgspec.Struct, gc=False):
    """What is used of a line of the access log."""

    model: str
    outcome: str
    backend: str | None
    upstream_ms: float | None
    attempts: int
    payload_bytes: int
    cold_start: bool | None = None


class _Sample:
    """A uniform sample of bounded size (Vitter's algorithm R)."""

    def __init__(self, seed: int) -> None:
        self.values: list[float] = []
        self._seen = 0
        self._random = Random(seed)  # noqa: S311  picks what is kept

    def add(self, value: float) -> None:
        self._seen += 1
        if len(self.values) < _KEPT:
            self.values.append(value)
            return
        place = self._random.randrange(self._seen)
        if place < _KEPT:
            self.values[place] = value


@dataclass(slots=True)
class _Seen:
    """What was seen of one model, in milliseconds and bytes."""

    pool_ms: _Sample = field(default_factory=lambda: _Sample(1))
    warm_ms: _Sample = field(default_factory=lambda: _Sample(2))
    cold_ms: _Sample = field(default_factory=lambda: _Sample(3))
    payload_bytes: _Sample = field(default_factory=lambda: _Sample(4))


def measured_world(
    lines: Iterable[str],
    day: datetime.date,
    dropped: Dropped,
    startup_s: Mapping[str, float] | None = None,
) -> str:
    """The world file as YAML, with the models' start-ups. What is no request goes to `dropped`."""
    models: dict[str, _Seen] = {}
    for line in _parsed(lines, dropped):
        if line.model not in models and len(models) >= MAX_MODELS:
            dropped.add(f"more than {MAX_MODELS} models")
            continue
        _add(models.setdefault(line.model, _Seen()), line)
    found = {name: keys for name, seen in sorted(models.items()) if (keys := _keys(seen))}
    for name, seconds in (startup_s or {}).items():
        found[name] = {**found.get(name, {}), "startup_s": seconds}
    world = {
        "dated": day.isoformat(),
        "source": "measured from an access log",
        "default": {"serverless": {"overhead_ms": 0}},
        "models": found,
    }
    return yaml.safe_dump(world, sort_keys=False, default_flow_style=None, width=100)


def _parsed(lines: Iterable[str], dropped: Dropped) -> Iterator[_Line]:
    decode = msgspec.json.Decoder(_Line).decode
    for number, text in enumerate(lines, 1):
        try:
            line = decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if text.strip():
                dropped.add("not a line of the access log", number)
            continue
        was_run = line.outcome == "ok" and line.payload_bytes > 0
        if was_run and line.attempts == 1 and line.upstream_ms is not None:
            yield line


def _add(seen: _Seen, line: _Line) -> None:
    assert line.upstream_ms is not None  # noqa: S101  _parsed yields no others
    seen.payload_bytes.add(line.payload_bytes)
    if line.backend == "pool":
        seen.pool_ms.add(line.upstream_ms)
    elif line.cold_start:
        seen.cold_ms.add(line.upstream_ms)
    else:
        seen.warm_ms.add(line.upstream_ms)


def _keys(seen: _Seen) -> Mapping[str, Any]:
    """The model's keys; of too few requests nothing is concluded."""
    keys: dict[str, Any] = {}
    serverless: dict[str, Any] = {}
    pool, warm = seen.pool_ms.values, seen.warm_ms.values
    if max(len(pool), len(warm)) >= _FEWEST:
        keys["service_time_ms"] = _empirical(pool if len(pool) >= _FEWEST else warm)
        keys["payload_bytes"] = _empirical(seen.payload_bytes.values)
    if len(warm) >= _FEWEST:
        serverless["service_time_ms"] = _empirical(warm)
        if seen.cold_ms.values:
            usual_ms = float(np.median(warm))
            serverless["cold_start_ms"] = _empirical(
                [max(cold_ms - usual_ms, 0.0) for cold_ms in seen.cold_ms.values]
            )
    return {**keys, "serverless": serverless} if serverless else keys


def _empirical(values: list[float]) -> dict[str, list[float]]:
    points = np.quantile(values, np.linspace(0, 1, _QUANTILES))
    return {"empirical": [float(f"{point:.6g}") for point in np.maximum.accumulate(points)]}
