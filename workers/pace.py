"""How long a model's runs take, by the size of their input: which of them the event loop can bear.

A run on the loop saves the way to a thread and back, which costs more than a small run; for as long
it answers nobody else. Pure: told what was measured, it never measures.
"""

from dataclasses import dataclass, field
from typing import Final

LIMIT_S: Final = 0.001
"""The longest run that others may have to wait for."""
JOINED_LIMIT_S: Final = 0.0001
"""For models with batching: longer runs are worth more together than on the spot."""

_STEADY_RUNS: Final = 8
_SURPRISE: Final = 5.0
_FIRST_BAR: Final = 32
_LONGEST_BAR: Final = 4096


@dataclass(slots=True)
class _Size:
    """What is known of inputs of about one size.

    `streak` counts short runs, below 0 those that are still barred; the next `bar` is so long.
    """

    is_quick: bool = False
    streak: int = 0
    bar: int = _FIRST_BAR
    long_runs: int = 0


@dataclass(slots=True)
class Pace:
    """The runs of one model. Not thread-safe: it belongs to the event loop.

    Quick is a size whose last runs all took less than half of `limit_s`, until some take more than
    all of it. One that took many times as long bars its size, each time for longer: it may be the
    machine's doing, or what is in the input makes the difference there. A `limit_s` of 0 lets
    nothing be quick.
    """

    limit_s: float
    _sizes: dict[int, _Size] = field(default_factory=dict)
    has_quick: bool = False

    def is_quick(self, elements: int) -> bool:
        """Whether a run on so many input elements is short."""
        found = self._sizes.get(elements.bit_length())
        return found is not None and found.is_quick

    def record(self, elements: int, run_s: float) -> None:
        """A run has taken so long of its thread's own time."""
        size = self._sizes.get(elements.bit_length())
        if size is None:
            size = self._sizes[elements.bit_length()] = _Size()
        if size.is_quick:
            self._record_quick(size, run_s)
            return
        size.streak = size.streak + 1 if run_s < self.limit_s / 2 or size.streak < 0 else 0
        if size.streak >= _STEADY_RUNS:
            size.is_quick = self.has_quick = True
            size.long_runs = 0

    def _record_quick(self, size: _Size, run_s: float) -> None:
        size.long_runs = size.long_runs + 1 if run_s > self.limit_s else 0
        is_surprise = run_s > _SURPRISE * self.limit_s
        if is_surprise or size.long_runs == _STEADY_RUNS:
            size.is_quick = False
            size.streak = -size.bar if is_surprise else 0
            size.bar = min(2 * size.bar, _LONGEST_BAR) if is_surprise else size.bar
            self.has_quick = any(one.is_quick for one in self._sizes.values())
