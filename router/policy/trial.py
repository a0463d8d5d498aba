"""One canary on trial: what came of both sides lately, and whether it still gets its share.

A state machine over plain numbers: it is told the time. A canary that was rolled back stays so
until somebody resumes it, or configures another. Gateways with the same canary agree in the end:
the word of the latest term holds, and within a term a rollback.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
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

    `digest` names the canary's settings, `term` counts how often it was resumed. `current` is the
    canary with the share that `step` promotions have given it.
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
        self.current = canary
        self.step = 0
        self._step_since: float | None = None
        self._step_requests = 0
        self.labels = dict.fromkeys(Side, 0)
        self._slots: deque[_Slot] = deque()
        self._unseen = 0

    @property
    def epoch(self) -> str:
        """What changes when the trial begins anew: with other settings, or in another term."""
        return f"{self.digest} {self.term}"

    @property
    def is_rolled_back(self) -> bool:
        """Whether the canary gets nothing any more."""
        return self.finding is not None

    @property
    def share(self) -> float:
        """The share of the requests that the canary gets now."""
        return 0.0 if self.is_rolled_back else self.current.share

    def record(self, side: Side, latency_s: float | None, now: float) -> Finding | None:
        """Count one request that ended, None for a failed one; returns a new finding.

        What was begun before a rollback and ends after it still counts in the totals.
        """
        self.totals[side, latency_s is None] += 1
        if self.is_rolled_back:
            return None
        finding = self._judged(side, latency_s, now)
        if finding is None and side is Side.CANARY:
            self._promote(now)
        return finding

    def _judged(self, side: Side, latency_s: float | None, now: float) -> Finding | None:
        params = self.canary.rollback
        if params is None:
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

    def convict(self, finding: Finding, epoch: str) -> bool:
        """Take the canary out for what somebody else has found in the trial of that epoch.

        Returns whether that changed anything.
        """
        if self.is_rolled_back or epoch != self.epoch:
            return False
        self._roll_back(finding)
        return True

    def count_label(self, side: str) -> None:
        """Somebody has said whether an answer of that side was right."""
        self.labels[Side(side)] += 1

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
        self._step_to(0)
        self._slots.clear()
        self._unseen = 0

    def follow(self, step: int) -> bool:
        """Be at least as far as another gateway in the same term; whether that changed anything."""
        step = min(step, len(self._shares) - 1)
        if self.is_rolled_back or step <= self.step:
            return False
        self._step_to(step)
        return True

    def _promote(self, now: float) -> None:
        """Take the next step, if this one has lasted and nothing was found."""
        promotion = self.canary.promotion
        if promotion is None:
            return
        if self._step_since is None:
            self._step_since = now
        self._step_requests += 1
        if (
            now - self._step_since >= promotion.after_s
            and self._step_requests >= promotion.requests
            and self.labels[Side.CANARY] >= promotion.labels
            and self.step + 1 < len(self._shares)
        ):
            self._step_to(self.step + 1)

    @property
    def _shares(self) -> tuple[float, ...]:
        """The share of each step: the configured one first."""
        promotion, first = self.canary.promotion, self.canary.share
        steps = promotion.steps if promotion is not None else ()
        return first, *(share for share in steps if share > first)

    def _step_to(self, step: int) -> None:
        """Give the canary the share of that step, and begin to count anew."""
        self.step = step
        self.current = replace(self.canary, share=self._shares[step])
        self._step_since, self._step_requests = None, 0
        self.labels = dict.fromkeys(Side, 0)

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
