"""How far durations reach above their mean: a quantile of their ratio to it, learned as they come.

A histogram whose bins grow with the value, as in HdrHistogram (Tene): sixteen to an octave, so a
quantile is right within a sixteenth. Old counts fade by halves, so it follows a change within
`_MEMORY` observations. One for all payload sizes of a model on one backend: sizes differ in their
mean, and share what makes times scatter. Reads no clock.
"""

from math import frexp

QUANTILE = 0.99
"""What the high estimate stands for. With 0.98 or with mean + 4 mean absolute deviations more
requests were late at the same bill, with 0.995 the bill was 3 to 5 % higher (docs/science.md)."""
LEAST = 200
"""Observations from which on the quantile is more than a guess: two lie above it."""

_PER_OCTAVE = 16
_LOWEST, _OCTAVES = -2, 7  # ratios of 1/4 to 32
_BINS = _PER_OCTAVE * _OCTAVES
_SHIFT = -_PER_OCTAVE * (2 + _LOWEST)
_MEMORY = 4096
_LOOK_EVERY = 16


class Spread:
    """The ratio to the mean that QUANTILE of all durations stay below; 0 until it is known."""

    __slots__ = ("_counts", "_seen", "_total", "factor")

    def __init__(self) -> None:
        self._counts = [0.0] * _BINS
        self._total = 0.0
        self._seen = 0
        self.factor = 0.0

    def observe(self, ratio: float) -> None:
        """Learn the ratio of one duration to the mean before it."""
        # The mantissa is 0.5..1, so its bits after the first one say which part of the octave.
        mantissa, exponent = frexp(ratio)
        place = exponent * _PER_OCTAVE + int(mantissa * (2 * _PER_OCTAVE)) + _SHIFT
        if place < 0:
            place = 0
        elif place >= _BINS:
            place = _BINS - 1
        self._counts[place] += 1.0
        self._total += 1.0
        self._seen += 1
        if not self._seen % _LOOK_EVERY and self._seen >= LEAST:
            self._look()

    def _look(self) -> None:
        if self._total > _MEMORY:
            self._counts = [count / 2 for count in self._counts]
            self._total /= 2
        above, left = 0.0, (1 - QUANTILE) * self._total
        for place in range(_BINS - 1, -1, -1):
            count = self._counts[place]
            if above + count > left:
                # Evenly within the bin.
                share = (left - above) / count
                lower, upper = _edge(place), _edge(place + 1)
                self.factor = upper - share * (upper - lower)
                return
            above += count


def _edge(place: int) -> float:
    """The lower end of a bin."""
    octave, part = divmod(place, _PER_OCTAVE)
    start: float = 2.0 ** (octave + _LOWEST)
    return start * (1 + part / _PER_OCTAVE)
