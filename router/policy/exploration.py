"""When a place whose estimate keeps requests away gets one all the same.

A place without requests teaches nothing: a wrong prior, or a first answer that was slow, would keep
it shut for good. So it gets single requests until it is known, and few from then on. What they may
miss is bounded: n requests see at most sqrt(n) trials of a size, ten at the most, and one in 2,000
beyond (as an epsilon-greedy rule with falling epsilon; Sutton and Barto, "Reinforcement learning",
2018, 2.7). A state machine over plain numbers: it reads no clock and decides nothing else.
"""

from typing import NamedTuple

from router.policy.estimates import payload_bucket

_FIRST = 10
"""So many trials follow each other fast enough to find out what is true."""
_SELDOM = 2_000
"""Then one in so many requests is a trial, all sizes together: half a per mille may be late."""
_RENEWED = 3
"""A new replica or function deserves so many of the fast ones again."""
_LOST_S = 10.0
"""A trial that was not answered for so long will not be."""


class _Trials(NamedTuple):
    """The trials of one size: how many, and what was counted when the last one began."""

    begun: int
    at_request: int
    answers: int
    at: float


_NONE = _Trials(0, 0, 0, float("-inf"))


class Exploration:
    """The trials of one place, by payload size."""

    __slots__ = ("_trials",)

    def __init__(self) -> None:
        self._trials: dict[int, _Trials] = {}

    def is_due(self, payload_bytes: int, answers: int, requests: int, now: float) -> bool:
        """Whether a request of that size may try the place.

        `answers` is how many the place's estimate has seen, `requests` how many came for the model.
        """
        last = self._trials.get(payload_bucket(payload_bytes))
        if last is None:
            return True
        if answers == last.answers and now - last.at < _LOST_S:
            return False  # the last one is still under way
        since = requests - last.at_request
        if last.begun < _FIRST:
            return since >= 2 * last.begun - 1
        return since >= _SELDOM * len(self._trials)

    def begun(self, payload_bytes: int, answers: int, requests: int, now: float) -> None:
        """A request of that size was sent to find out."""
        bucket = payload_bucket(payload_bytes)
        before = self._trials.get(bucket, _NONE)
        self._trials[bucket] = _Trials(before.begun + 1, requests, answers, now)

    def renewed(self) -> None:
        """The place is not what it was: what kept requests away may be gone."""
        for bucket, last in self._trials.items():
            begun = min(last.begun, _FIRST - _RENEWED)
            self._trials[bucket] = last._replace(begun=begun)
