"""Events of the process's log that come again and again: some are written, the others counted.

Whoever can reach a port must not be able to fill a disk, or to hide other events behind theirs.
"""

import logging
from collections.abc import Mapping

PERIOD_S = 10.0
MOST = 100
"""Events of one place in the code that are written in each period."""

BY_STRANGERS: Mapping[str, object] = {"by_strangers": True}
"""The `extra` of an event that any client can cause at will: one is written in each period."""


class RepeatLimit(logging.Filter):
    """Lets so many events of one place in the code pass; the next to pass says how many did not.

    The place and not the text tells events apart: texts may hold what a client chose.
    """

    def __init__(self) -> None:
        super().__init__()
        self._periods: dict[tuple[str, int], _Period] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the event is written."""
        place = (record.pathname, record.lineno)
        period = self._periods.setdefault(place, _Period())
        most = 1 if getattr(record, "by_strangers", False) else MOST
        left_out = period.count(record.created, most)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like it were not written)"
        return left_out is not None


class _Period:
    """The events of one place since `began`."""

    __slots__ = ("began", "left_out", "passed")

    def __init__(self) -> None:
        self.began = float("-inf")
        self.passed = 0
        self.left_out = 0

    def count(self, now: float, most: int) -> int | None:
        """How many were left out before this one passes; None if it does not."""
        if abs(now - self.began) >= PERIOD_S:  # a wall clock may be set back
            self.began, self.passed = now, 0
        if self.passed >= most:
            self.left_out += 1
            return None
        self.passed += 1
        left_out, self.left_out = self.left_out, 0
        return left_out
