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
    wrong, and what is called bad may still answer: once the good ones have no free slot the slow
    ones are used again, and if there is no other backend (`is_last_resort`) the failing ones too.
    """
    good, usable = _split(members, now, is_last_resort=is_last_resort)
    if len(members) - len(good) <= params.max_share * len(members):
        return good
    return [member for member in good if member.load < 1] or usable


def panics(
    members: Sequence[M], params: OutlierParams, now: float, *, is_last_resort: bool
) -> bool:
    """Whether endpoints may take traffic that would be set aside if they were fewer."""
    good, usable = _split(members, now, is_last_resort=is_last_resort)
    too_many = len(members) - len(good) > params.max_share * len(members)
    return too_many and len(usable) > len(good)


def _split(members: Sequence[M], now: float, *, is_last_resort: bool) -> tuple[list[M], list[M]]:
    """The good ones, and those to be used if too many are bad."""
    good = [member for member in members if not (member.is_failing(now) or member.is_slow(now))]
    if is_last_resort:
        return good, list(members)
    return good, [member for member in members if not member.is_failing(now)]
