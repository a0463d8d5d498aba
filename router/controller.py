"""The loop that sizes the pools: signals in, wanted replicas out, once per interval.

Adds up the fleet's counters, turns them into demand, asks the sizing policy and tells the drivers.
Also accounts for what replicas cost. Never touches a request.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.pool.group import MemberPool
from router.domain.clock import Clock
from router.domain.events import EventKind, told
from router.domain.ports import PoolDriver
from router.policy.alternatives import replicas_for_peak
from router.policy.deferral import NOTHING, Waiting, size_jointly
from router.policy.demand import (
    USUAL_PAYLOAD_BYTES,
    PoolFacts,
    Rates,
    demand_from,
    starting_since,
    summed,
)
from router.policy.sizing import Demand, Level, Sizing, SizingParams, size
from router.policy.trial import CanaryTrial
from router.policy.warm_bill import WarmBill
from router.resting import Resting
from router.runtime import GroupRuntime, ModelRuntime, RuntimeRef, SizingState
from router.settings.pools import PoolSettings
from router.signals.snapshot import FleetSnapshot, ModelTotals, SharedEndpoint
from router.signals.window import Window
from router.telemetry.labels import Alternative, CostPart
from router.telemetry.metrics import Metrics
from router.turns import Steps, at_once, in_turns
from router.upstream.address import parse_address

_log = logging.getLogger(__name__)

_NEWS_S = 30.0
"""Jobs of which nothing was heard for so long keep no replica: their store may be gone."""


class Sharing(NamedTuple):
    """A model with its places on the replicas that it shares, and what it asks of them."""

    model: ModelRuntime
    member: MemberPool
    demand: Demand


class Controller:
    """Sizes every model's pool and follows the fleet's shared state."""

    def __init__(
        self,
        runtime: RuntimeRef,
        fleet: Callable[[], FleetSnapshot],
        metrics: Metrics,
        clock: Clock,
        gateway_id: str,
    ) -> None:
        self._runtime = runtime
        self._fleet = fleet
        self._metrics = metrics
        self._clock = clock
        self._gateway_id = gateway_id
        self._windows: dict[str, Window] = {}
        self._bills: dict[str, WarmBill] = {}
        self._resting = Resting()
        self._last_step: float | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A request waits for a first replica: do not wait for the next interval."""
        self._resting.forget()  # whose it is, nobody says
        self._woken.set()

    async def run(self) -> None:
        """Step until cancelled."""
        while True:
            await in_turns(self.stepping())
            interval_s = self._runtime.current.settings.controller.interval_s
            try:
                async with asyncio.timeout(interval_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    def step(self) -> None:
        """One sizing decision for every model."""
        at_once(self.stepping())

    def stepping(self) -> Steps[None]:
        """As `step`, model by model."""
        now, before = self._clock(), self._last_step
        dt = now - before if before is not None else 0.0
        self._last_step = now
        runtime, fleet = self._runtime.current, self._fleet()
        _follow_canaries(runtime.trials, fleet)
        sharing: dict[str, list[Sharing]] = {name: [] for name in runtime.groups}
        is_stale = fleet.stale(now, runtime.settings.shared_state.staleness_s)
        for model in runtime.models.values():
            if self._resting.holds(model, fleet, now, is_stale=is_stale):
                if fleet.is_leader:
                    self._account_always_warm(model, dt, now)
                yield
                continue
            totals = self._observe(model, fleet, runtime.settings.controller.window_s, before, now)
            self._account_function(model, dt, leads=fleet.is_leader)
            demand = self._demand(model, now)
            if demand is not None and model.group:
                members = runtime.groups[model.group].members.members
                # A reload between two turns may have taken it out already.
                if (member := members.get(model.name)) is not None:
                    sharing[model.group].append(Sharing(model, member, demand))
            elif demand is not None:
                self._step_model(model, demand, fleet, dt, now)
            self._resting.note(model, demand, totals, now, is_stale=is_stale)
            yield
        for name, group in runtime.groups.items():
            yield from self._stepping_group(group, sharing[name], fleet, dt, now)
        for gone in self._windows.keys() - runtime.models.keys():
            del self._windows[gone]
            self._bills.pop(gone, None)
        self._resting.retain(runtime.models)

    def _observe(
        self, model: ModelRuntime, fleet: FleetSnapshot, window_s: float, before: float | None,
        now: float,
    ) -> Mapping[str, ModelTotals]:  # fmt: skip
        """Take note of a model's counters; returns them."""
        window = self._windows.setdefault(model.name, Window(window_s))
        window.window_s = window_s
        if before is not None:
            window.rested_until(before)
        totals = {
            peer: models[model.name] for peer, models in fleet.peers.items() if model.name in models
        }
        totals[self._gateway_id] = model.signals.totals()
        window.add(now, totals)
        return totals

    def _demand(self, model: ModelRuntime, now: float) -> Demand | None:
        """What is asked of a model's pool; None if it has none."""
        rates = self._windows[model.name].rates()
        model.sizing.arrivals_per_s = rates.arrivals
        if model.pool is None:
            return None
        demand = demand_of(model, rates, now)
        model.sizing.load = demand.load
        return demand

    def _step_model(
        self, model: ModelRuntime, demand: Demand, fleet: FleetSnapshot, dt: float, now: float
    ) -> None:
        assert model.pool is not None and model.sizing_params is not None  # noqa: S101, PT018
        waiting = _still_told([model.sizing.waiting], now)
        self._size(model, model.pool, model.sizing_params, (demand, waiting), (dt, now))
        follow(model.pool, fleet.endpoints.get(model.name, ()), fleet.peer_in_flight)
        self._command(model, model.pool, fleet, now)
        self._account(model, model.sizing_params, dt, now, leads=fleet.is_leader)

    def _stepping_group(
        self,
        group: GroupRuntime,
        sharing: Sequence[Sharing],
        fleet: FleetSnapshot,
        dt: float,
        now: float,
    ) -> Steps[None]:
        """Size what the models ask for together, and say who is to be loaded where."""
        demand = summed([one.demand for one in sharing])
        if group.pool.ready:
            # Who waits for a model to be loaded asks for no replica.
            demand = demand._replace(held=0)
        group.sizing.load = demand.load
        waiting = _still_told([one.model.sizing.waiting for one in sharing], now)
        self._size(group, group.pool, group.sizing_params, (demand, waiting), (dt, now))
        follow(group.pool, fleet.endpoints.get(group.name, ()), fleet.peer_in_flight)
        self._command(group, group.pool, fleet, now)
        yield
        for one in sharing:
            one.member.worked(one.demand.load, dt)
            yield
        # Whoever leads changes what replicas have in memory, or two would undo each other's work.
        leads = fleet.is_leader
        group.residents.plan(now, may_load=leads, may_unload=leads and not group.pool.signals_stale)
        yield
        for one in sharing:
            _tell_member(one, group, now)
            yield
        yield from self._accounting_group(group, sharing, (dt, now), leads=leads)

    def _size(
        self,
        sized: ModelRuntime | GroupRuntime,
        pool: Pool,
        bounds: SizingParams,
        asked: tuple[Demand, Waiting | None],
        time: tuple[float, float],
    ) -> None:
        (demand, waiting), (dt, now) = asked, time
        state = sized.sizing
        if sized.driver is not None and (adopted := sized.driver.take_over()):
            state.levels = levels_of(adopted, bounds, now)
        # What starting a replica costs goes by how long starts have really taken.
        params, startup_s = bounds, pool.startup.mean_s
        if startup_s != bounds.startup_s:  # a copy for each of a thousand models is not free
            params = replace(bounds, startup_s=startup_s)
        if waiting is None:
            sizing = size(params, state.levels, demand, dt, now)
            state.together, state.deferral, state.alone = None, NOTHING, sizing.wanted
        else:
            sizing = _sized_jointly(sized, params, demand, waiting, time)
        if sizing.wanted != state.wanted:
            _tell_sizing(sized, params, sizing, demand)
        state.levels, state.wanted, state.reason = sizing.levels, sizing.wanted, sizing.reason

    def _command(
        self, sized: ModelRuntime | GroupRuntime, pool: Pool, fleet: FleetSnapshot, now: float
    ) -> None:
        driver, wanted = sized.driver, sized.sizing.wanted
        pool.starting_since = starting_since(
            pool.starting_since, pool.wanted, wanted, pool.ready, now
        )
        pool.wanted = wanted
        pool.signals_stale = fleet.stale(
            now, self._runtime.current.settings.shared_state.staleness_s
        )
        if driver is None:
            return
        if driver.is_shared:
            if fleet.is_leader:
                # Cut off from the others, each gateway leads and sees a part of the load.
                driver.want(wanted, may_shrink=not pool.signals_stale)
            return
        elsewhere = sum(not endpoint.is_local for endpoint in pool.endpoints.values())
        mine = max(0, wanted - elsewhere)
        # Only the leader starts replicas. Others keep what they run until the leader covers it.
        driver.want(mine if fleet.is_leader else min(mine, driver.billed))

    def _account_function(self, model: ModelRuntime, dt: float, *, leads: bool) -> None:
        """Count what environments cost that somebody keeps warm: once, on the leader's bill.

        With functions only, what has arrived here would have cost as much as well.
        """
        if model.serverless is None or not model.serverless.params.enabled:
            return
        usd = model.serverless.params.kept_warm.usd_per_s * dt if leads else 0.0
        if usd:
            model.sizing.kept_warm_usd += usd
            self._metrics.add_cost(model.name, CostPart.KEPT_WARM, usd)
        arrived_usd, before_usd = model.signals.serverless_usd, model.sizing.arrived_usd
        model.sizing.arrived_usd = arrived_usd
        self._instead(model, Alternative.ALWAYS_SERVERLESS, usd + arrived_usd - before_usd)

    def _instead(self, model: ModelRuntime, alternative: Alternative, usd: float) -> None:
        """Put it on the bill that the model would have had instead."""
        found = model.sizing.alternatives_usd
        found[alternative] = found.get(alternative, 0.0) + usd
        self._metrics.add_alternative(model.name, alternative, usd)

    def _account(
        self, model: ModelRuntime, params: SizingParams, dt: float, now: float, *, leads: bool
    ) -> None:
        """Split what this gateway's replicas cost into busy and idle, and between tenants."""
        if model.driver is None or model.pool is None:
            return
        billed_s = _billed_s(model.driver, dt, leads=leads)
        used_s = model.pool.take_used_s()
        busy_s = min(max(sum(used_s.values()), 0.0), billed_s)
        usd_per_s = params.replica_usd_per_s
        self._charge(model, used_s, busy_s * usd_per_s, (billed_s - busy_s) * usd_per_s, now)
        if leads:  # whose load is that of all gateways
            self._account_always_warm(model, dt, now)

    def _account_always_warm(self, model: ModelRuntime, dt: float, now: float) -> None:
        """Count what a pool of its own would have cost, were its replicas always there."""
        if model.driver is not None and model.sizing_params is not None:
            usd = _always_warm_usd(model.sizing, model.sizing_params, dt, now)
            self._instead(model, Alternative.ALWAYS_WARM, usd)

    def _accounting_group(
        self,
        group: GroupRuntime,
        sharing: Sequence[Sharing],
        time: tuple[float, float],
        *,
        leads: bool,
    ) -> Steps[None]:
        """Split a group's bill: each model pays for its work, and for idle time by its work."""
        dt, now = time
        usd_per_s = group.sizing_params.replica_usd_per_s
        billed_s = _billed_s(group.driver, dt, leads=leads)
        used_s = [one.member.take_used_s() for one in sharing]
        busy_s = [sum(used.values()) for used in used_s]
        all_busy_s = sum(busy_s)
        # More than is paid for where replicas that others pay for did some of it.
        scale = min(1.0, billed_s / all_busy_s) if all_busy_s else 0.0
        idle_usd = (billed_s - all_busy_s * scale) * usd_per_s
        warm_usd = _always_warm_usd(group.sizing, group.sizing_params, dt, now)
        heats = [one.member.heat for one in sharing]
        all_heat = sum(heats)
        for one, used, busy, heat in zip(sharing, used_s, busy_s, heats, strict=True):
            part = heat / all_heat if all_heat else 1 / len(sharing)
            self._charge(one.model, used, busy * scale * usd_per_s, idle_usd * part, now)
            if leads:
                self._instead(one.model, Alternative.ALWAYS_WARM, warm_usd * part)
            yield

    def _charge(
        self,
        model: ModelRuntime,
        used_s: Mapping[str, float],
        busy_usd: float,
        idle_usd: float,
        now: float,
    ) -> None:
        """Put it on the model's bill, and its tenants'."""
        model.sizing.warm_busy_usd += busy_usd
        model.sizing.warm_idle_usd += idle_usd
        bill = self._bills.setdefault(model.name, WarmBill())
        for share in bill.split(used_s, busy_usd, idle_usd, now):
            self._metrics.add_cost(model.name, CostPart.WARM_BUSY, share.busy_usd, share.tenant)
            self._metrics.add_cost(model.name, CostPart.WARM_IDLE, share.idle_usd, share.tenant)


def _billed_s(driver: PoolDriver, dt: float, *, leads: bool) -> float:
    # Replicas that all gateways have are on the leader's bill, and on no other.
    is_payer = leads or not driver.is_shared
    return driver.billed * dt if is_payer else 0.0


def _always_warm_usd(state: SizingState, params: SizingParams, dt: float, now: float) -> float:
    """What a pool for the last day's highest load would have cost."""
    replicas = replicas_for_peak(state.peak.add(state.load, now), params.max_replicas)
    return replicas * params.replica_usd_per_s * dt


def _sized_jointly(
    sized: ModelRuntime | GroupRuntime,
    params: SizingParams,
    demand: Demand,
    waiting: Waiting,
    time: tuple[float, float],
) -> Sizing:
    """One step with jobs beside the requests."""
    state, pool = sized.sizing, sized.pool
    settings = sized.settings if isinstance(sized, GroupRuntime) else sized.settings.pool
    assert pool is not None and settings is not None  # noqa: S101, PT018  it is sized
    slots = concurrency_of(pool, settings)
    both = size_jointly(params, (state.levels, state.together), demand, waiting, slots, time)
    state.together, state.deferral, state.alone = both.state, both.deferral, both.alone
    return both.sizing


def _still_told(told: Sequence[Waiting | None], now: float) -> Waiting | None:
    """What jobs wait for, of models that share a pool together; nothing that is not news."""
    recent = [one for one in told if one is not None and now - one.seen_at <= _NEWS_S]
    if len(recent) <= 1:
        return recent[0] if recent else None
    needs = tuple(need for one in recent for need in one.needs)
    caution = max(one.caution for one in recent)
    return Waiting(needs, sum(one.width for one in recent), now, caution)


def _tell_member(sharing: Sharing, group: GroupRuntime, now: float) -> None:
    """What a model's own pool has to know of the replicas that it shares."""
    state, member = sharing.model.sizing, sharing.member
    wanted = group.sizing.wanted if member.heat or member.is_awaited else 0
    member.starting_since = starting_since(
        member.starting_since, member.wanted, wanted, member.ready, now
    )
    member.wanted, member.signals_stale = wanted, group.pool.signals_stale
    state.wanted, state.reason = wanted, group.sizing.reason


def _tell_sizing(
    sized: ModelRuntime | GroupRuntime, params: SizingParams, sizing: Sizing, demand: Demand
) -> None:
    """Log another number of replicas with the arithmetic that asks for it."""
    wanted_before, arrivals_per_s = sized.sizing.wanted, sized.sizing.arrivals_per_s
    # The level that turned: the last one of those that are wanted, or the first that is not.
    level = max(sizing.wanted, wanted_before) - 1
    counter_usd = sizing.levels[level].counter_usd if level < len(sizing.levels) else 0.0
    _log.info(
        "%s: %d -> %d replicas (%s, load %.2f replicas from %.2f requests/s; replica %d:"
        " counter %.4g of %.4g USD)",
        sized.title, wanted_before, sizing.wanted, sizing.reason, demand.load, arrivals_per_s,
        level + 1, counter_usd, params.beta_usd(0.0),
        extra=told(
            EventKind.SIZING, sized.name, before=wanted_before, after=sizing.wanted,
            reason=sizing.reason, load=round(demand.load, 4),
            arrivals_per_s=round(arrivals_per_s, 3), counter_usd=round(counter_usd, 9),
            beta_usd=round(params.beta_usd(0.0), 9),
            serverless_usd_per_s=round(demand.serverless_usd_per_s, 9),
            replica_usd_per_s=params.replica_usd_per_s, captive_load=round(demand.captive_load, 4),
            held=demand.held, latency_duty=demand.latency_duty,
        ),
    )  # fmt: skip


def follow(pool: Pool, shared: Sequence[SharedEndpoint], peer_in_flight: Mapping[str, int]) -> None:
    """Bring the pool's remote endpoints in line with what the other gateways run."""
    known = {endpoint.id: endpoint for endpoint in pool.endpoints.values()}
    wanted = {endpoint.id for endpoint in shared}
    for endpoint in known.values():
        endpoint.peer_in_flight = peer_in_flight.get(endpoint.id, 0)
        if not endpoint.is_local and endpoint.id not in wanted:
            pool.remove(endpoint.id)
    for theirs in shared:
        if theirs.id not in known:
            # Ready once our own probe says so: what a peer reaches, we may not.
            address = parse_address(theirs.url)
            pool.add(Endpoint(theirs.id, address, theirs.concurrency, is_local=False))


def levels_of(replicas: int, params: SizingParams, now: float) -> tuple[Level, ...]:
    """The sizing's state if so many replicas had just been bought: they have to prove useless."""
    count = min(replicas, params.max_replicas)
    bought = replace(params, min_replicas=0, max_replicas=count)
    return size(bought, (), Demand(count, 0.0, captive_load=count), 0.0, now).levels


def concurrency_of(pool: Pool, settings: PoolSettings) -> int:
    """How many requests a replica takes at once."""
    return max(1, round(pool.learned_capacity or settings.concurrency))


def demand_of(model: ModelRuntime, rates: Rates, now: float) -> Demand:
    """The sizing policy's view of a model's traffic."""
    pool, settings = model.pool, model.settings.pool
    assert pool is not None and settings is not None  # noqa: S101, PT018
    facts = PoolFacts(concurrency_of(pool, settings), len(pool.queue), pool.ready)
    function = model.serverless
    usual = function.snapshot(USUAL_PAYLOAD_BYTES, now) if function is not None else None
    return demand_from(rates, facts, model.policy.slo, usual)


def _follow_canaries(trials: Mapping[str, CanaryTrial], fleet: FleetSnapshot) -> None:
    """Roll back, and resume, what another gateway has; its settings must be the same."""
    for rule, trial in trials.items():
        words = fleet.canaries.get(rule, ())
        if trial.hear((word.term, word.is_out) for word in words if word.canary == trial.digest):
            state = "rolled back" if trial.is_rolled_back else "resumed"
            _log.warning(
                "canary of rule %s is %s, as by another gateway", rule, state,
                extra=told(EventKind.CANARY, trial.canary.stable_model, rule=rule, state=state),
            )  # fmt: skip
        steps = [w.step for w in words if (w.canary, w.term) == (trial.digest, trial.term)]
        if trial.follow(max(steps, default=0)):
            _log.warning(
                "canary of rule %s is promoted, as by another gateway", rule,
                extra=told(
                    EventKind.CANARY, trial.canary.stable_model, rule=rule, state="promoted"
                ),
            )  # fmt: skip
