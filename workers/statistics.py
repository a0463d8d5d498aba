"""Counts and durations of one model, in the shape of Triton's statistics extension.

Decides what counts as an inference, an execution and a batch. Thread-safe; reads no clock.
"""

import threading
from collections import defaultdict
from collections.abc import Sequence
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

    def plus(self, other: "Timing") -> "Timing":
        """The sums, phase by phase."""
        return Timing(
            self.queue_ns + other.queue_ns,
            self.input_ns + other.input_ns,
            self.infer_ns + other.infer_ns,
            self.output_ns + other.output_ns,
        )


_NONE = Timing(0, 0, 0, 0)


@dataclass(slots=True)
class Statistics:
    """Counters of one model version since it was loaded."""

    _inference_rows: int = 0
    _executions: int = 0
    _last_inference_ms: int = 0
    _answered: int = 0
    _times: Timing = _NONE
    _failed: _Duration = field(default_factory=_Duration)
    _batches: dict[int, _Duration] = field(default_factory=lambda: defaultdict(_Duration))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def last_inference_ms(self) -> int:
        """When a request was answered last, in milliseconds since the epoch; 0 for never."""
        return self._last_inference_ms

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
            self._answered += 1
            self._times = self._times.plus(timing)

    def record_alone(self, requests: Sequence[tuple[int, Timing]], wall_ms: int) -> None:
        """Answered requests, by rows, that each had a call of the runtime for themselves.

        The last of them ended `wall_ms` since the epoch.
        """
        with self._lock:
            self._last_inference_ms = wall_ms
            self._answered += len(requests)
            self._executions += len(requests)
            input_ns = infer_ns = output_ns = all_rows = 0
            for rows, timing in requests:
                all_rows += rows
                input_ns += timing.input_ns
                infer_ns += timing.infer_ns
                output_ns += timing.output_ns
                self._batches[rows].add(timing.infer_ns)
            self._inference_rows += all_rows
            self._times = self._times.plus(Timing(0, input_ns, infer_ns, output_ns))

    def record_failure(self, elapsed_ns: int) -> None:
        """One request that was not answered with a result."""
        with self._lock:
            self._failed.add(elapsed_ns)

    def as_json(self, name: str, version: str) -> dict[str, Any]:
        """One entry of `model_stats`."""
        with self._lock:
            count, times = self._answered, self._times
            return {
                "name": name,
                "version": version,
                "last_inference": self._last_inference_ms,
                "inference_count": self._inference_rows,
                "execution_count": self._executions,
                "inference_stats": {
                    "success": _Duration(count, times.total_ns).as_json(),
                    "fail": self._failed.as_json(),
                    "queue": _Duration(count, times.queue_ns).as_json(),
                    "compute_input": _Duration(count, times.input_ns).as_json(),
                    "compute_infer": _Duration(count, times.infer_ns).as_json(),
                    "compute_output": _Duration(count, times.output_ns).as_json(),
                },
                "batch_stats": [
                    {"batch_size": rows, "compute_infer": duration.as_json()}
                    for rows, duration in sorted(self._batches.items())
                ],
            }
