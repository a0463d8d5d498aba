"""Which jobs begin now, and on what. Pure.

Real-time comes first: a job gets a slot that it most likely will not want as long as the job has
it. What is paid already is free, so jobs wait for it as long as their windows allow; what has to
begin now in order to end in time is decided like any request, by the same arithmetic, and counted
by the sizing like one. Lanes that are forced go first, in the order of their latest start; the free
slots are shared by the tenants, and each tenant's go to the lane that has to start first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

_SLACK = 1.5
_MARGIN_S = 1.0


class Lane(Protocol):
    """Jobs of one tenant for one model: `waiting` of them wait, the first is due at `due_at`."""

    @property
    def name(self) -> str:
        """What grants call it."""
        ...

    @property
    def tenant(self) -> str:
        """Whose jobs they are."""
        ...

    @property
    def waiting(self) -> int:
        """How many wait."""
        ...

    @property
    def due_at(self) -> float:
        """When the first of them has to be done."""
        ...


@dataclass(frozen=True, slots=True)
class Room:
    """What jobs of one model find now.

    `free` slots are paid for and to spare. `paid` more may begin where a window forces it. A job
    is expected to take `service_s`, and `width` of them can run at once in the end.
    """

    free: int
    paid: int
    service_s: float
    width: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for `count` jobs of a lane to begin; `is_forced`: although they cost something."""

    lane: str
    count: int
    is_forced: bool


def work_s(waiting: int, room: Room) -> float:
    """How long so many jobs take once all of `width` is theirs."""
    return ceil(waiting / max(1, room.width)) * room.service_s


def latest_starts(lanes: Sequence[Lane], room: Room) -> dict[str, float]:
    """When the jobs of each lane have to begin, those of other lanes that are due before included.

    The estimate may be wrong by half before anything is late.
    """
    starts: dict[str, float] = {}
    waiting = 0
    for lane in sorted(lanes, key=lambda one: one.due_at):
        waiting += lane.waiting
        starts[lane.name] = lane.due_at - _SLACK * work_s(waiting, room) - _MARGIN_S
    return starts


def earliest_end(lanes: Sequence[Lane], due_at: float, jobs: int, room: Room, now: float) -> float:
    """When so many more jobs can be done at the latest, after all that is due before them."""
    waiting = sum(lane.waiting for lane in lanes if lane.due_at <= due_at)
    return now + _SLACK * work_s(waiting + jobs, room)


def plan(lanes: Sequence[Lane], room: Room, running: Mapping[str, int], now: float) -> list[Grant]:
    """What of one model's lanes begins now; `running` jobs of each tenant have."""
    starts = latest_starts(lanes, room)
    in_order = sorted(lanes, key=lambda one: (starts[one.name], one.name))
    forced, left = list[Grant](), dict[str, int]()
    paid = room.free + room.paid
    for lane in in_order:
        count = min(lane.waiting, paid) if starts[lane.name] <= now else 0
        if count:
            forced.append(Grant(lane.name, count, is_forced=True))
            paid -= count
        left[lane.name] = lane.waiting - count
    used = sum(grant.count for grant in forced)
    return forced + _shared(in_order, left, room.free - used, running)


def _shared(
    lanes: Sequence[Lane], left: dict[str, int], free: int, running: Mapping[str, int]
) -> list[Grant]:
    """Free slots one by one: to the tenant that has fewest, to its most urgent lane."""
    has = {lane.tenant: running.get(lane.tenant, 0) for lane in lanes}
    granted: dict[str, int] = {}
    for _ in range(max(0, free)):
        open_lanes = [lane for lane in lanes if left[lane.name]]
        if not open_lanes:
            break
        lane = min(open_lanes, key=lambda one: has[one.tenant])  # the first of them is most urgent
        has[lane.tenant] += 1
        left[lane.name] -= 1
        granted[lane.name] = granted.get(lane.name, 0) + 1
    return [Grant(name, count, is_forced=False) for name, count in granted.items()]
