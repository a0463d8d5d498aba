"""Work that may wait: for how long it does, and the cheapest way to have it done in time. Pure.

A job that waits costs nothing, and what is free until its window ends (the idle time of replicas
that real-time keeps anyway) does it for nothing. What that cannot do has to be paid: on the
function, or on replicas that are started for it and are filled entirely. Both are priced like the
sizing prices real-time, per second of a replica's work.

When to begin paying: replicas that are started together cost a start-up each, so the work is
begun by as many as may be started for two per cent of what it costs. Beginning earlier, with fewer,
would save less than that and give away what may still come for free. From then on there are as
many as the rest needs at full speed, so that it ends as its window does.

What work is worth to a replica: a second of it that is done now need not be paid later. So a
replica that real-time alone would not keep, or not start, pays if its requests and that together
cost more elsewhere. This is one more rent of the sizing's levels (`policy.sizing`); it never
exceeds the replica's price, so that jobs alone start none before their time.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate
from math import ceil, exp, inf
from typing import NamedTuple

from router.policy.sizing import Demand, Filling, Level, Sizing, SizingParams, lasting, size
from router.policy.spare import CALM, Caution, spare_slots

SLACK = 1.2
"""Work is begun as if it were a fifth more: estimates are wrong, and retries take their part."""
_START_SHARE = 0.02
"""What the start-ups of replicas that begin together may cost, as a share of the work."""
_HOLD_ON = 0.25
"""Once begun, work goes on at full speed until a quarter of that pace is enough."""
_MEMORY_S = 3600.0
"""Idle capacity is expected to stay as it has been for about an hour."""
_NOW_S = 1.0


class Way(StrEnum):
    """How the work that waits will be done."""

    FREE = "free"
    FUNCTION = "function"
    REPLICAS = "replicas"


class Need(NamedTuple):
    """Work that has to be done by a time.

    `work` in seconds of a whole replica, `usd` what it would cost on serverless (infinite where it
    cannot go there).
    """

    due_at: float
    work: float
    usd: float


class Waiting(NamedTuple):
    """All work of one pool that waits, as it was seen at a time.

    It can fill `width` replicas at once, and keeps off real-time with that `caution`.
    """

    needs: tuple[Need, ...]
    width: float
    seen_at: float
    caution: Caution = CALM


class Deferral(NamedTuple):
    """What becomes of the work that waits.

    `replicas` more than real-time's are to be there for it now. A second of a replica that does
    some of it saves `worth_usd`. All of it is expected to cost `usd` from now on.
    """

    way: Way
    replicas: int
    worth_usd: float
    usd: float
    work: float
    spare: float

    def done_in_s(self, work: float, left_s: float) -> float:
        """When the first so much of it will be done, `left_s` before it is due."""
        rate = self.spare + self.replicas
        return min(work / rate if rate > 0 else inf, max(left_s, 0.0))


class Idle(NamedTuple):
    """What jobs can have: `spare` replicas' worth of idle time, `most` replicas of their own."""

    spare: float
    most: float


NOTHING = Deferral(Way.FREE, 0, 0.0, 0.0, 0.0, 0.0)


def defer(
    needs: Sequence[Need], params: SizingParams, idle: Idle, begun: int, now: float
) -> Deferral:
    """The cheapest way for all needs. `begun` replicas are there for jobs already."""
    ordered = sorted(needs)
    works = list(accumulate(need.work for need in ordered))
    if not works or works[-1] <= 0:
        return NOTHING
    work, spare = works[-1], idle.spare
    left = [max(need.due_at - now, _NOW_S) for need in ordered]
    # What comes first in the order of windows is what idle time does first.
    missing = [SLACK * done - spare * left_s for done, left_s in zip(works, left, strict=True)]
    if max(missing) <= 0:
        return Deferral(Way.FREE, 0, 0.0, 0.0, work, spare)
    startup_s = 0.0 if begun else params.startup_s
    pace = max(
        work_s / max(left_s - startup_s, _NOW_S)
        for work_s, left_s in zip(missing, left, strict=True)
    )
    paid = min(max(missing) / SLACK, work)
    together = _together(params, work, idle.most)
    count = max(1, ceil(min(max(pace, together), idle.most)))
    on_replicas_usd = _on_replicas_usd(params, paid, count, has_begun=begun > 0)
    on_function_usd = sum(need.usd for need in ordered) * paid / work
    if on_function_usd <= on_replicas_usd or (idle.most < 1 and on_function_usd < inf):
        return Deferral(Way.FUNCTION, 0, on_function_usd / work, on_function_usd, work, spare)
    replicas = int(min(_begun(pace, together, begun), idle.most))
    return Deferral(Way.REPLICAS, replicas, on_replicas_usd / work, on_replicas_usd, work, spare)


def _begun(pace: float, together: float, begun: int) -> int:
    """How many replicas are to be there now for a pace, if so many are there already.

    Estimates waver: one more is started only where the slack is used up, and none is stopped
    before all of them are far more than are needed, and could be started again.
    """
    if pace < together and not begun:
        return 0
    if pace < _HOLD_ON * begun and begun <= together:
        return 0
    return max(begun, ceil(pace / SLACK))


def _together(params: SizingParams, work: float, most: float) -> float:
    """Replicas that may be started together: more would cost more than they can save.

    At most half of what there may be, so that some are left should it turn out to take longer.
    """
    most = max(1.0, most / 2)
    if params.startup_s <= 0:
        return most
    return min(max(_START_SHARE * work / params.startup_s, 1.0), most)


def _on_replicas_usd(params: SizingParams, work: float, count: int, *, has_begun: bool) -> float:
    """The bill of so many replicas that do that work together; of starts that are still to come."""
    if has_begun:
        return params.replica_usd_per_s * work
    each_s = max(params.startup_s + work / count, params.min_billing_s)
    return params.replica_usd_per_s * each_s * count


class Together(NamedTuple):
    """What sizing a pool for both remembers between steps.

    `alone` are the levels of real-time as if there were no jobs, `spare` what they leave idle.
    """

    alone: tuple[Level, ...] = ()
    spare: float | None = None
    begun: int = 0


class Jointly(NamedTuple):
    """The wanted replicas of both; `alone` of them are real-time's."""

    sizing: Sizing
    alone: int
    deferral: Deferral
    state: Together


def size_jointly(
    params: SizingParams,
    state: tuple[tuple[Level, ...], Together | None],
    demand: Demand,
    waiting: Waiting,
    slots: int,
    time: tuple[float, float],
) -> Jointly:
    """Advance the levels by one step, with work that may wait beside the demand.

    `state` are the levels and what the step before returned (None for the first one with jobs); a
    replica has `slots`; `time` is the step's length and the present.
    """
    (levels, before), (dt, now) = state, time
    together = before or Together(levels)
    alone = size(params, together.alone, demand, dt, now)
    idle = usable(lasting(params, alone, demand), demand.load, slots, waiting.caution)
    spare = _expected(together.spare, idle, dt)
    most = min(waiting.width, params.max_replicas - alone.wanted)
    deferral = defer(waiting.needs, params, Idle(spare, most), together.begun, now)
    worth_usd = min(deferral.worth_usd, params.replica_usd_per_s)
    asked = demand._replace(
        filling=Filling(worth_usd, min(waiting.width, deferral.work), slots),
        forced=alone.wanted + deferral.replicas if deferral.replicas else 0,
    )
    sizing = size(params, levels, asked, dt, now)
    state_after = Together(alone.levels, spare, deferral.replicas)
    return Jointly(sizing, alone.wanted, deferral, state_after)


def usable(replicas: int, load: float, slots: int, caution: Caution = CALM) -> float:
    """How much of so many replicas jobs can use beside that load, in replicas."""
    in_use = load * slots
    return spare_slots(replicas * slots, in_use, 0, in_use, caution) / slots


def _expected(before: float | None, idle: float, dt: float) -> float:
    """Idle capacity to reckon with: its average of late."""
    if before is None:
        return idle
    return before + (idle - before) * (1.0 - exp(-dt / _MEMORY_S))
