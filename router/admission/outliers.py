"""Which endpoints are set aside for doing far worse than their peers, and how many may be at all.

Worse is slower, or answering errors. Pure. Attempts that fail are the circuit's business; here they
only count towards the largest share. Never
takes an endpoint out of its pool: those set aside come back when their time is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Protocol, TypeVar

MIN_SAMPLES = 20
"""An endpoint's pace is compared once so many of its answers are known."""
MIN_ANSWERS = 20
"""And its errors once there are so many answers."""
_ERRING_RATIO = 0.8
"""An endpoint that answers so many with errors does so to everybody."""
_FAR = 3.0


@dataclass(frozen=True, slots=True)
class OutlierParams:
    """An endpoint is slow at `slower_by` times its peers' median (0: never).

    `least_excess_s` more than they take it must take too, or jitter of quick models would count.
    `max_share` of the endpoints may be set aside at once, for whatever reason.
    """

    slower_by: float = 3.0
    least_excess_s: float = 0.02
    max_share: float = 0.5


USUAL_OUTLIERS = OutlierParams()


class Pace(NamedTuple):
    """How long an endpoint takes: in terms of what such requests usually take, and in seconds."""

    ratio: float
    usual_s: float


def pace_of(samples: Sequence[tuple[float, float]]) -> Pace:
    """The median over pairs of seconds taken and seconds such requests usually take."""
    ratios = [taken_s / usual_s for taken_s, usual_s in samples if usual_s > 0]
    return Pace(median(ratios or [1.0]), median(usual_s for _, usual_s in samples))


def slow_ones(paces: Mapping[str, Pace], params: OutlierParams) -> list[str]:
    """Endpoints far slower than the others, slowest first. One alone cannot be compared."""
    if params.slower_by <= 0:
        return []
    found = [id_ for id_ in paces if _is_slow(id_, paces, params)]
    return sorted(found, key=lambda id_: paces[id_].ratio, reverse=True)


def _is_slow(id_: str, paces: Mapping[str, Pace], params: OutlierParams) -> bool:
    others = [pace.ratio for other, pace in paces.items() if other != id_]
    if not others:
        return False
    own, usual = paces[id_], median(others)
    excess_s = (own.ratio - usual) * own.usual_s
    return own.ratio > params.slower_by * usual and excess_s > params.least_excess_s


class Answered(NamedTuple):
    """What an endpoint has answered of late: so much that was good, and errors by caller."""

    good: int
    errors: Mapping[str, int]

    @property
    def error_ratio(self) -> float:
        """The share of errors."""
        errors = sum(self.errors.values())
        return errors / (self.good + errors) if errors else 0.0


def erring_ones(answered: Mapping[str, Answered]) -> list[str]:
    """Endpoints that answer nearly everybody with errors while others do not, worst first.

    An error may be its request's fault. So a caller is a witness only if it gets far fewer of them
    elsewhere, and nobody is judged who has no sibling to be compared with.
    """
    ratios = {id_: _witnessed_ratio(id_, answered) for id_ in answered}
    found = [id_ for id_, ratio in ratios.items() if _is_erring(id_, ratio, answered)]
    return sorted(found, key=lambda id_: ratios[id_], reverse=True)


def _is_erring(id_: str, ratio: float, answered: Mapping[str, Answered]) -> bool:
    others = [one.error_ratio for other, one in answered.items() if other != id_]
    return bool(others) and ratio >= _ERRING_RATIO and median(others) <= ratio / 2


def _witnessed_ratio(id_: str, answered: Mapping[str, Answered]) -> float:
    """The share of errors among the answers to callers that do better elsewhere."""
    own = answered[id_]
    others = [one.errors for other, one in answered.items() if other != id_]
    errors = sum(
        count
        for caller, count in own.errors.items()
        if others and count > _FAR * median(errors.get(caller, 0) for errors in others)
    )
    answers = own.good + errors
    return errors / answers if answers >= MIN_ANSWERS else 0.0


def may_set_aside(members: int, aside: int, params: OutlierParams) -> int:
    """How many more of the members may be set aside."""
    return max(0, int(params.max_share * members) - aside)


class Member(Protocol):
    """An endpoint that its probes call good."""

    @property
    def load(self) -> float:
        """Outstanding requests over slots; below 1 there is a free slot."""
        ...

    def is_failing(self, now: float) -> bool:
        """Whether its attempts keep failing."""
        ...

    def is_slow(self, now: float) -> bool:
        """Whether it is set aside for being slow."""
        ...


M = TypeVar("M", bound=Member)


def in_rotation(
    members: Sequence[M], params: OutlierParams, now: float, *, is_last_resort: bool
) -> list[M]:
    """The members that take traffic.

    Where more than the largest share would be set aside, something else than single endpoints is
    wrong: slow ones are used again once the good ones have no free slot. Failing ones are used only
    if nothing else is left, and no other backend (`is_last_resort`): they may still answer, but
    while others work they would take the traffic that those would soon have room for.
    """
    good, working = _split(members, now)
    if len(members) - len(good) <= params.max_share * len(members):
        return good
    if working:
        return [member for member in good if member.load < 1] or working
    return list(members) if is_last_resort else []


def panics(
    members: Sequence[M], params: OutlierParams, now: float, *, is_last_resort: bool
) -> bool:
    """Whether endpoints may take traffic that would be set aside if they were fewer."""
    good, working = _split(members, now)
    if len(members) - len(good) <= params.max_share * len(members):
        return False
    return len(working) > len(good) or (is_last_resort and not working)


def _split(members: Sequence[M], now: float) -> tuple[list[M], list[M]]:
    """The good ones; those and the slow ones."""
    working = [member for member in members if not member.is_failing(now)]
    return [member for member in working if not member.is_slow(now)], working
