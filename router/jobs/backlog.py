"""What waits for each model, in the terms of sizing, and what will become of it.

The runner tells the models' sizing here, and clients are told from here. Decides nothing: that is
`policy.deferral`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, inf, isfinite
from typing import NamedTuple

from router.jobs.records import Job, Lane
from router.policy.deferral import Deferral, Idle, Need, Waiting, defer, usable
from router.runtime import ModelRuntime, Runtime, SizingState

USUAL_BYTES = 1024
"""Of a job whose size is not known yet."""


class Outlook(NamedTuple):
    """When jobs that wait will be done (wall clock, at the latest), and what they will cost."""

    done_at: float
    usd: float
    jobs: int

    def told(self) -> dict[str, object]:
        """What clients are told of it."""
        return {"expected_at": ceil(self.done_at), "expected_cost_usd": self.usd}

    def of_one(self) -> "Outlook":
        """What becomes of one of the jobs."""
        return self._replace(usd=self.usd / self.jobs, jobs=1)


class Cost(NamedTuple):
    """What one job asks: seconds of a whole replica, of a slot, and USD on the function."""

    work: float
    service_s: float
    usd: float


def sizing_of(runtime: Runtime, model: ModelRuntime) -> SizingState:
    """The sizing of the replicas that a model runs on."""
    return runtime.groups[model.group].sizing if model.group else model.sizing


def cost_of(model: ModelRuntime) -> Cost:
    """What a usual job of the model asks, as far as that is known."""
    function, pool, settings = model.serverless, model.pool, model.settings.pool
    usd = inf
    service_s = model.believed_work_s(USUAL_BYTES)
    if function is not None and function.params.enabled:
        usd = function.expected_price_usd(USUAL_BYTES)
        service_s = service_s or function.service_times.estimate(USUAL_BYTES).mean_s
    if pool is None or settings is None:
        return Cost(0.0, service_s, usd)
    slots = pool.learned_capacity or settings.concurrency
    return Cost(service_s / max(slots, 1), service_s, usd)


def waiting_of(
    model: ModelRuntime, lanes: Iterable[Lane], held: Iterable[Job], width: int, clocks: "Clocks"
) -> Waiting | None:
    """All that waits for a model: in the store, and `held` here; None for nothing.

    `width` of its jobs may run at once. Lanes that may not cost anything ask for nothing.
    """
    by_due = Counter[float]()
    for lane in lanes:
        by_due[lane.due_at] += lane.waiting
    for job in held:
        by_due[job.due_at] += 1
    if not by_due:
        return None
    cost = cost_of(model)
    needs = tuple(
        Need(due_at - clocks.ahead_s, count * cost.work, count * cost.usd)
        for due_at, count in sorted(by_due.items())
    )
    one = max(cost.work / cost.service_s, 1e-9) if cost.service_s else 1.0
    return Waiting(needs, width * one, clocks.now)


class Clocks(NamedTuple):
    """The monotonic time, and how far the wall clock is ahead of it."""

    now: float
    ahead_s: float


def outlooks(
    runtime: Runtime, model: ModelRuntime, lanes: Sequence[Lane], width: int, clocks: Clocks
) -> dict[str, Outlook]:
    """What will become of each of a model's lanes."""
    cost = cost_of(model)
    deferral = _deferral(runtime, model, lanes, width, clocks)
    found, before = dict[str, Outlook](), 0
    for lane in sorted(lanes, key=lambda one: (one.due_at, one.name)):
        before += lane.waiting
        left_s = lane.due_at - clocks.now - clocks.ahead_s
        if deferral is None or not deferral.work:  # nothing is ever free: they begin at once
            done_in_s = before * cost.service_s / max(width, 1)
            usd = lane.waiting * cost.usd
        else:
            done_in_s = deferral.done_in_s(before * cost.work, left_s)
            usd = deferral.usd * lane.waiting * cost.work / deferral.work
        done_at = clocks.now + clocks.ahead_s + max(done_in_s, cost.service_s)
        found[lane.name] = Outlook(done_at, usd if isfinite(usd) else 0.0, lane.waiting)
    return found


def _deferral(
    runtime: Runtime, model: ModelRuntime, lanes: Sequence[Lane], width: int, clocks: Clocks
) -> Deferral | None:
    """What sizing does with it, or will at its next step; None where nothing is sized."""
    params, settings = model.sizing_params, model.settings.pool
    if params is None or settings is None or not settings.enabled:
        return None
    sizing = sizing_of(runtime, model)
    waiting = waiting_of(model, lanes, (), width, clocks)
    if waiting is None:
        return None
    together = sizing.together
    spare = together.spare if together is not None else None
    if spare is None:
        spare = usable(sizing.wanted, sizing.load, settings.concurrency)
    begun = together.begun if together is not None else 0
    most = min(waiting.width, params.max_replicas - sizing.alone)
    return defer(waiting.needs, params, Idle(spare, most), begun, clocks.now)


def by_batch(lanes: Iterable[Lane], found: Mapping[str, Outlook]) -> dict[str, Outlook]:
    """What will become of each batch: its last job's end, and all that is still to be paid."""
    batches: defaultdict[str, list[Outlook]] = defaultdict(list)
    for lane in lanes:
        if lane.batch and lane.name in found:
            batches[lane.batch].append(found[lane.name])
    return {
        name: Outlook(
            max(one.done_at for one in parts),
            sum(one.usd for one in parts),
            sum(one.jobs for one in parts),
        )
        for name, parts in batches.items()
    }
