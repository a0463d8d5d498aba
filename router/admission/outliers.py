"""Which endpoints are set aside for being far slower than their peers, and how many may be at all.

Pure. Failures are the circuit's business; here they only count towards the largest share. Never
takes an endpoint out of its pool: those set aside come back when their time is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Protocol, TypeVar

MIN_SAMPLES = 20
"""An endpoint is compared once so many of its answers are known."""


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
    """Those far slower than the others, slowest first. One alone has nobody to be compared with."""
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
