"""Models that share replicas, under one policy: each one's requests, and the replicas of all.

Every model is simulated as it would be alone, with its own function, queue and estimates; only its
slots are those of the shared replicas that have it loaded. Sizing sees the sum, `policy.placement`
says who is loaded where, and `policy.turns` whose turn a slot is, as in the gateway. A model leaves
a replica at once, and replicas do not crash.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple, cast

from router.policy.demand import USUAL_PAYLOAD_BYTES, breaks_objective, starting_since
from router.policy.estimates import DurationEstimate, payload_bucket
from router.policy.placement import PLAN_EVERY_S, Placement, Tenant, warmed
from router.policy.turns import Turns
from router.replay.beliefs import Queue, Waiter
from router.replay.machine import Late, Outcome
from router.replay.replicas import Replicas
from router.replay.simulator import Results, Simulation
from router.replay.sizers import Observed, Sizer
from router.replay.workload import Block, ModelSetup
from router.signals.snapshot import ModelTotals

_TICK, _PLAN, _READY, _LOADED = range(4)
_LOOK_EVERY_S = 1.0
"""As often as live, where it is the controller's interval."""
_USUAL_BUCKET = payload_bucket(USUAL_PAYLOAD_BYTES)


class Seats:
    """One model's part in shared replicas: those that have it loaded stand for all there are."""

    def __init__(self, replicas: Replicas) -> None:
        self.loaded: set[int] = set()
        self.wanted = 0
        self._all = replicas

    @property
    def ready(self) -> int:
        """Replicas that have the model and take requests."""
        return len(self.loaded)

    @property
    def slots(self) -> int:
        """Requests that those take at once, of all models."""
        return len(self.loaded) * self._all.capacity

    @property
    def free(self) -> int:
        """Free places there."""
        if len(self.loaded) == self._all.ready:
            return self._all.free
        load, capacity = self._all.load, self._all.capacity
        return sum(max(capacity - load[slot], 0) for slot in self.loaded)

    def take(self, now: float, service_s: float) -> tuple[int, float]:
        """As `Replicas.take`."""
        if len(self.loaded) == self._all.ready:
            return self._all.take(now, service_s)
        slot = min(self.loaded, key=self._all.load.__getitem__)
        return self._all.begin(slot, now, service_s)

    def release(self, slot: int, now: float) -> None:
        """A request has ended there."""
        self._all.release(slot, now)

    def crash_at(self, _slot: int) -> float:
        """Never."""
        return inf


class Member(Simulation):
    """One of the models."""

    def __init__(self, setup: ModelSetup, seed: int, group: "SharedSimulation") -> None:
        super().__init__(setup, None, seed)
        self.seats = Seats(group.replicas)
        # Its part in the replicas stands where its own ones would.
        self.replicas = cast("Replicas", self.seats)
        self.heat = 0.0
        self._contenders = group.turns.waiting
        self._group = group
        self._sharing = setup.runtime.settings.sharing
        self._planned = ModelTotals()

    @property
    def next_at(self) -> float:
        """When the next thing happens to it."""
        return self._events[0][0]

    @property
    def is_waiting(self) -> bool:
        """Whether requests wait for a slot."""
        return bool(self._pool_queue.waiting)

    @property
    def is_homeless(self) -> bool:
        """Whether requests came lately and no replica has it."""
        return not self.seats.loaded and self.signals.arrivals > self._planned.arrivals

    @property
    def name(self) -> str:
        """The model's name."""
        return self._name

    @property
    def load_s(self) -> float:
        """How long a replica takes to load it."""
        return self._sharing.load_s

    def step(self) -> None:
        """Let the next thing happen."""
        self._happen(heapq.heappop(self._events))

    def has_duty(self, now: float) -> bool:
        """Whether its function alone would break its objective."""
        return breaks_objective(self._slo, self.function(now))

    def tenant(self, concurrency: int, dt: float) -> Tenant:
        """What it needs of the replicas, by its work in the `dt` seconds since this was asked."""
        totals = self.signals.totals()
        work_s = totals.work_s - self._planned.work_s
        self._planned = totals
        self.heat = warmed(self.heat, work_s / concurrency / dt if dt else 0.0, dt)
        is_awaited = self.is_waiting and not self.seats.loaded
        return Tenant(self._sharing.memory_bytes, self.heat, is_awaited=is_awaited)

    def settle(self, slot: int) -> None:
        """Note that a replica has loaded the model."""
        self.seats.loaded.add(slot)
        if self._pool is not None:
            self._pool.startup.observe(self.load_s)
            self._pool.exploration.renewed()

    def told(self, wanted: int, now: float) -> None:
        """Take up how many replicas are wanted."""
        pool, seats = self._pool, self.seats
        if pool is not None:
            pool.starting_since = starting_since(
                pool.starting_since, seats.wanted, wanted, seats.ready, now
            )
        seats.wanted = wanted

    def serve_first(self, now: float) -> float | None:
        """Start who has waited longest, if there is a slot; about how long it takes."""
        if self.seats.free <= 0:
            return None
        waiter = self._pool_queue.first()
        self._settle(waiter, self._in_pool(waiter, now))
        assert self._pool is not None  # noqa: S101
        return self._pool.table.best[_USUAL_BUCKET].mean_s

    def _hold(self, waiter: Waiter, queue: Queue, now: float, patience_s: float = inf) -> Outcome:
        if queue is self._pool_queue:
            self._group.turns.join(self._name)
        return super()._hold(waiter, queue, now, patience_s)

    def _pump_pool(self, now: float) -> None:
        self._group.pump(now)

    def _tick_at(self, at: float) -> None:
        self._group.tick_at(at)


class _Event(NamedTuple):
    """What happens to a replica: it is ready, or has loaded the model with that number."""

    at: float
    kind: int
    slot: int = 0
    launched: float = 0.0
    model: int = 0


class SharedSimulation(Observed):
    """The models of one shared pool. `size_by` says who says how many replicas there are."""

    def __init__(self, setups: Sequence[ModelSetup], seeds: Sequence[int]) -> None:
        first, pool = setups[0], setups[0].runtime.settings.pool
        assert pool is not None  # noqa: S101
        self.replicas = Replicas(first.world, pool.concurrency, seeds[0])
        self.turns = Turns()
        self._members = [
            Member(setup, seed, self) for setup, seed in zip(setups, seeds, strict=True)
        ]
        self._numbers = {member.name: number for number, member in enumerate(self._members)}
        self._room_bytes = pool.model_memory_bytes
        self._concurrency = pool.concurrency
        self.busy_s = 0.0
        self._startup = DurationEstimate(pool.startup_s)
        self._placement = Placement()
        self._loading: set[tuple[int, float, int]] = set()
        self._planned_at = 0.0
        self._next_tick = inf
        self._sizer: Sizer | None = None
        self._events: list[_Event] = []
        self._heads: list[tuple[float, int]] = []

    def size_by(self, sizer: Sizer) -> None:
        """Ask this one from the beginning on."""
        self._sizer = sizer
        self.tick_at(0.0)
        self._push(_Event(_LOOK_EVERY_S, _PLAN))

    # -- what sizing sees --------------------------------------------------------------------------

    def totals(self, now: float) -> ModelTotals:
        """All models' counters, added up."""
        each = [member.totals(now) for member in self._members]
        return ModelTotals(*(sum(column) for column in zip(*each, strict=True)))

    @property
    def queued(self) -> int:
        """Requests that wait for a replica."""
        return sum(member.queued for member in self._members)

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return self.replicas.ready

    @property
    def wanted(self) -> int:
        """Replicas asked for last."""
        return self.replicas.wanted

    @property
    def startup_s(self) -> float:
        """How long a replica is believed to start."""
        return self._startup.mean_s

    def function(self, now: float) -> None:
        """The models have their own (see `has_duty`)."""
        del now

    def has_duty(self, now: float) -> bool:
        """Whether any model's function alone would break its objective."""
        return any(member.has_duty(now) for member in self._members)

    @property
    def throttled(self) -> Mapping[str, int]:
        """Calls that the platform refused, by model."""
        return {member.name: member.throttled for member in self._members}

    # -- requests ----------------------------------------------------------------------------------

    def run(self, blocks: Mapping[str, Block]) -> dict[str, Results]:
        """Take the models' requests, which come after all earlier ones, in the order of time."""
        running = {
            self._numbers[name]: self._running(name, block) for name, block in blocks.items()
        }
        coming = [(at, number) for number, rows in running.items() for at in [next(rows, inf)]]
        heapq.heapify(coming)
        while coming and coming[0][0] < inf:
            at, number = coming[0]
            self._advance(at)
            heapq.heapreplace(coming, (next(running[number], inf), number))
            self._touch(number)
        return {
            name: self._members[self._numbers[name]].results(block)
            for name, block in blocks.items()
        }

    def _running(self, name: str, block: Block) -> Iterator[float]:
        return self._members[self._numbers[name]].running(block)

    def finish(self, horizon: float) -> dict[str, list[Late]]:
        """Go on to the horizon, where sizing stops, and let what is under way end."""
        self._advance(horizon)
        self._sizer = None
        self._advance(inf)
        return {member.name: member.finish(horizon) for member in self._members}

    def pump(self, now: float) -> None:
        """Hand free slots to waiting requests, as `Group.pump`."""

        def waits(name: str) -> bool:
            return self._members[self._numbers[name]].is_waiting

        def serve(name: str) -> float | None:
            number = self._numbers[name]
            work_s = self._members[number].serve_first(now)
            self._touch(number)
            return work_s

        self.turns.hand_out(waits, serve)

    # -- time --------------------------------------------------------------------------------------

    def tick_at(self, at: float) -> None:
        """Ask the sizer then, unless it is asked earlier."""
        if at < self._next_tick:
            self._next_tick = at
            self._push(_Event(at, _TICK))

    def _push(self, event: _Event) -> None:
        heapq.heappush(self._events, event)

    def _touch(self, number: int) -> None:
        """Look anew when the next thing happens to a model."""
        at = self._members[number].next_at
        if at < inf:
            heapq.heappush(self._heads, (at, number))

    def _advance(self, until: float) -> None:
        """Let everything happen that is due by then."""
        heads, events = self._heads, self._events
        while True:
            head = heads[0][0] if heads else inf
            own = events[0].at if events else inf
            if min(head, own) > until or min(head, own) == inf:
                return
            if own <= head:
                self._happen(heapq.heappop(events))
                continue
            at, number = heapq.heappop(heads)
            member = self._members[number]
            if member.next_at == at:  # else something else comes first, which is listed too
                member.step()
                self._touch(number)

    def _happen(self, event: _Event) -> None:
        if event.kind == _TICK:
            if event.at == self._next_tick:
                self._tick(event.at)
        elif event.kind == _PLAN:
            if self._sizer is not None:
                self._look(event.at)
                self._push(_Event(event.at + _LOOK_EVERY_S, _PLAN))
        elif event.kind == _READY:
            if self.replicas.became_ready(event.slot, event.launched, event.at):
                self._startup.observe(event.at - event.launched)
                self._plan(event.at)
        else:
            self._has_loaded(event)

    def _tick(self, now: float) -> None:
        self._next_tick = inf
        if self._sizer is None:
            return
        self.busy_s = sum(member.busy_s for member in self._members)
        wanted = self._sizer.wanted(self, now)
        if wanted != self.replicas.wanted:
            for ready_at, slot in self.replicas.want(wanted, now):
                self._push(_Event(ready_at, _READY, slot, now))
            staying = self.replicas.available
            for member in self._members:
                member.seats.loaded.intersection_update(staying)
                member.told(wanted, now)
        self.tick_at(self._sizer.next_step(now))

    # -- who is loaded where -----------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Decide anew if that could make a difference, as `Placement.is_due`."""
        is_overdue = now - self._planned_at >= PLAN_EVERY_S
        if is_overdue or any(member.is_homeless for member in self._members):
            self._plan(now)

    def _plan(self, now: float) -> None:
        dt, self._planned_at = now - self._planned_at, now
        tenants = {member.name: member.tenant(self._concurrency, dt) for member in self._members}
        loaded = {
            str(slot): [one.name for one in self._members if slot in one.seats.loaded]
            for slot in self.replicas.available
        }
        self._placement.decide(tenants, loaded, self._room_bytes, now)
        for slot in self.replicas.available:
            self._bring(slot, self._placement.wishes[str(slot)], now)

    def _bring(self, slot: int, wish: Sequence[str], now: float) -> None:
        """Have a replica unload, and load one model after the other."""
        launched = self.replicas.launched_at(slot)
        assert launched is not None  # noqa: S101
        for member in self._members:
            if slot in member.seats.loaded and member.name not in wish:
                member.seats.loaded.discard(slot)
        for name in wish:
            number = self._numbers[name]
            member, key = self._members[number], (slot, launched, number)
            if slot not in member.seats.loaded and key not in self._loading:
                self._loading.add(key)
                now += member.load_s
                self._push(_Event(now, _LOADED, slot, launched, number))

    def _has_loaded(self, event: _Event) -> None:
        self._loading.discard((event.slot, event.launched, event.model))
        is_there = self.replicas.launched_at(event.slot) == event.launched
        if not is_there or event.slot not in self.replicas.available:
            return
        member = self._members[event.model]
        if member.name in self._placement.wishes.get(str(event.slot), ()):
            member.settle(event.slot)
            self.pump(event.at)
