"""One canary on trial: what came of both sides lately, and whether it still gets its share.

A state machine over plain numbers: it is told the time. A canary that was rolled back stays so
until somebody resumes it, or configures another. Gateways with the same canary agree in the end:
the word of the latest term holds, and within a term a rollback.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from router.policy.canary import Canary, Side
from router.policy.rollback import Fault, Finding, Tally, judge

_SLOTS = 10
"""A window moves on by a tenth of its length."""
_LOOKS_PER_MINIMUM = 5
"""A look at the numbers comes with every fifth of `min_requests` of the canary's."""


@dataclass(slots=True)
class _Slot:
    since: float
    stable: Tally
    canary: Tally


class CanaryTrial:
    """The trial of one rule's canary. `rollbacks` and the totals by side only grow.

    `digest` names the canary's settings, `term` counts how often it was resumed.
    """

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.digest = blake2b(repr(canary).encode(), digest_size=8).hexdigest()
        self.term = 0
        self.finding: Finding | None = None
        self.rollbacks = 0
        self.totals: dict[tuple[Side, bool], int] = {
            (side, failed): 0 for side in Side for failed in (False, True)
        }
        self._slots: deque[_Slot] = deque()
        self._unseen = 0

    @property
    def is_rolled_back(self) -> bool:
        """Whether the canary gets nothing any more."""
        return self.finding is not None

    @property
    def share(self) -> float:
        """The share of the requests that the canary gets now."""
        return 0.0 if self.is_rolled_back else self.canary.share

    def record(self, side: Side, latency_s: float | None, now: float) -> Finding | None:
        """Count one request that ended, None for a failed one; returns a new finding.

        What was begun before a rollback and ends after it still counts in the totals.
        """
        self.totals[side, latency_s is None] += 1
        params = self.canary.rollback
        if params is None or self.is_rolled_back:
            return None
        slot = self._slot(now, params.window_s)
        (slot.canary if side is Side.CANARY else slot.stable).add(latency_s)
        if side is Side.STABLE:
            return None
        self._unseen += 1
        if self._unseen * _LOOKS_PER_MINIMUM < params.min_requests:
            return None
        self._unseen = 0
        finding = judge(*self.window(now), params)
        if finding is not None:
            self._roll_back(finding)
        return finding

    def roll_back(self) -> bool:
        """Take the canary out because somebody asked; whether that changed anything."""
        if self.is_rolled_back:
            return False
        self._roll_back(Finding(Fault.ASKED, "asked for by the admin port"))
        return True

    def resume(self) -> bool:
        """Give the canary its share again, with nothing held against it; whether it had none."""
        if not self.is_rolled_back:
            return False
        self.term += 1
        self._begin()
        return True

    def hear(self, words: Iterable[tuple[int, bool]]) -> bool:
        """Agree with what others say, each a term and whether the canary is out.

        Returns whether that changed anything.
        """
        term, is_out = max(words, default=(0, False))
        if (term, is_out) <= (self.term, self.is_rolled_back):
            return False
        self.term = term
        if is_out == self.is_rolled_back:
            return False
        if is_out:
            self._roll_back(Finding(Fault.HEARD, "another gateway has rolled it back"))
        else:
            self._begin()
        return True

    def _begin(self) -> None:
        self.finding = None
        self._slots.clear()
        self._unseen = 0

    def window(self, now: float) -> tuple[Tally, Tally]:
        """The stable side and the canary over the window."""
        self._expire(now)
        stable, canary = Tally(), Tally()
        for slot in self._slots:
            stable.merge(slot.stable)
            canary.merge(slot.canary)
        return stable, canary

    def _roll_back(self, finding: Finding) -> None:
        self.finding = finding
        self.rollbacks += 1

    def _slot(self, now: float, window_s: float) -> _Slot:
        if not self._slots or now - self._slots[-1].since >= window_s / _SLOTS:
            self._expire(now)
            self._slots.append(_Slot(now, Tally(), Tally()))
        return self._slots[-1]

    def _expire(self, now: float) -> None:
        params = self.canary.rollback
        while params is not None and self._slots and now - self._slots[0].since > params.window_s:
            self._slots.popleft()
