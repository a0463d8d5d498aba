"""Counts and durations of one model, in the shape of Triton's statistics extension.

Decides what counts as an inference, an execution and a batch. Thread-safe; reads no clock.
"""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(slots=True)
class _Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def as_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


class Timing(NamedTuple):
    """Nanoseconds of one request by phase; a batch's run counts for each of its requests."""

    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int

    @property
    def total_ns(self) -> int:
        """All phases together."""
        return self.queue_ns + self.input_ns + self.infer_ns + self.output_ns


@dataclass(slots=True)
class Statistics:
    """Counters of one model version since it was loaded."""

    _inference_rows: int = 0
    _executions: int = 0
    _last_inference_ms: int = 0
    _phases: dict[str, _Duration] = field(default_factory=lambda: defaultdict(_Duration))
    _batches: dict[int, _Duration] = field(default_factory=lambda: defaultdict(_Duration))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record_execution(self, rows: int, infer_ns: int) -> None:
        """One call of the runtime for `rows` rows."""
        with self._lock:
            self._executions += 1
            self._batches[rows].add(infer_ns)

    def record_success(self, rows: int, timing: Timing, wall_ms: int) -> None:
        """One answered request of `rows` rows, at `wall_ms` since the epoch."""
        with self._lock:
            self._inference_rows += rows
            self._last_inference_ms = wall_ms
            self._phases["success"].add(timing.total_ns)
            self._phases["queue"].add(timing.queue_ns)
            self._phases["compute_input"].add(timing.input_ns)
            self._phases["compute_infer"].add(timing.infer_ns)
            self._phases["compute_output"].add(timing.output_ns)

    def record_failure(self, elapsed_ns: int) -> None:
        """One request that was not answered with a result."""
        with self._lock:
            self._phases["fail"].add(elapsed_ns)

    def as_json(self, name: str, version: str) -> dict[str, Any]:
        """One entry of `model_stats`."""
        phases = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        with self._lock:
            return {
                "name": name,
                "version": version,
                "last_inference": self._last_inference_ms,
                "inference_count": self._inference_rows,
                "execution_count": self._executions,
                "inference_stats": {phase: self._phases[phase].as_json() for phase in phases},
                "batch_stats": [
                    {"batch_size": rows, "compute_infer": duration.as_json()}
                    for rows, duration in sorted(self._batches.items())
                ],
            }
