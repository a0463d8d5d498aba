"""A trace through the router and through everything it is compared with.

Reads the trace twice: once to measure the demand, once to simulate. Every policy gets the same
requests with the same service times and cold starts. Joins the parts; prints nothing.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from router.replay.arrivals import Dropped
from router.replay.groups import Reported, Shared, SharedPool
from router.replay.limit import Limit
from router.replay.measure import Measure
from router.replay.policies import CLAIRVOYANT, ROUTER, Bound, bound_of, simulations, typical
from router.replay.reading import ModelMap, Target, nothing_to_replay, parts
from router.replay.simulator import Simulation
from router.replay.tally import Sums, Tally, Timeline
from router.replay.traces import OnProgress, Trace
from router.replay.workload import Block, ModelSetup, Workload
from router.replay.world import World, model_world
from router.runtime import Runtime

WARM_UP_S = 3600.0
"""Longer than functions stay warm and than replicas need to prove useless."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How to replay: the length of a timeline's interval, what to compare with, what to train on.

    `train_share` of the trace, from its start, is for choosing the baselines' parameters and is not
    reported; 0 lets them be chosen on the whole trace, in their favour. Every policy runs through
    the last hour of it, so that what is reported begins warm.
    """

    seed: int
    interval_s: float = 60.0
    with_baselines: bool = True
    train_share: float = 0.0
    model_map: tuple[tuple[str, str], ...] = ()
    each_like: str | None = None


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model under one policy."""

    sums: Sums
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Replayed:
    """All results: by policy and model, and by model what nobody can pay less than.

    `bounds` take demand for even within its bins, `limits` look at every request. Both are of
    replicas that are a model's alone; `shared` has, by pool, those of models that share them, whose
    replicas are told of as a model called after the pool.
    """

    policies: Mapping[str, Mapping[str, ModelResult]]
    bounds: Mapping[str, Bound]
    limits: Mapping[str, float]
    horizon_s: float
    interval_s: float
    dropped: Dropped
    shared: Mapping[str, Shared] = field(default_factory=dict)


@dataclass(slots=True)
class _Model:
    """A model of the trace while it is replayed."""

    setup: ModelSetup
    measure: Measure
    workload: Workload
    limit: Limit | None = None
    pool: SharedPool | None = None
    runs: dict[str, tuple[Simulation, Tally]] = field(default_factory=dict)


class Replay:
    """One trace, one configuration, one world."""

    def __init__(
        self, runtime: Runtime, world: World, trace: Trace, options: ReplayOptions
    ) -> None:
        self._runtime = runtime
        self._world = world
        self._trace = trace
        self._options = options
        self._map = ModelMap(frozenset(runtime.models), options.model_map, options.each_like)
        self._models: dict[str, _Model] = {}
        self._pools: dict[str, SharedPool] = {}

    def run(self, on_progress: OnProgress = lambda _bytes: None) -> Replayed:
        """Measure, then simulate. Raises TraceError if nothing can be replayed.

        `on_progress` is told the bytes read, of twice the file's size.
        """
        dropped = Dropped()
        for model, block in self._blocks(dropped, on_progress):
            model.measure.add(block)
        if not self._models:
            raise nothing_to_replay(self._trace, dropped)
        start_s, end_s = self._reported()
        bounds = {
            name: self._prepare(model, start_s, end_s) for name, model in self._models.items()
        }
        self._share(start_s, end_s)
        for model in self._models.values():
            model.measure.forget()
        size = self._trace.size_bytes
        warm_s = min(start_s, WARM_UP_S)
        for model, block in self._blocks(Dropped(), lambda done: on_progress(size + done)):
            # Simulations begin with the warm-up, of which nothing is counted.
            part = block.between(start_s - warm_s)
            for counted in (part.before(warm_s), part.since(warm_s)):
                if len(counted):
                    for simulation, tally in model.runs.values():
                        tally.add(counted, simulation.run(counted))
            if model.pool is not None and len(part):
                model.pool.add(model.setup.name, part)
            if model.limit is not None:
                model.limit.add(block.between(start_s))
        return self._finished(bounds, end_s - start_s + warm_s, end_s - start_s, dropped)

    def _reported(self) -> tuple[float, float]:
        """Which part of the trace is reported, in whole intervals."""
        interval_s = self._options.interval_s
        last_at = max(model.measure.last_at for model in self._models.values())
        intervals = int(last_at / interval_s) + 1
        first = min(round(intervals * self._options.train_share), intervals - 1)
        return first * interval_s, intervals * interval_s

    # -- reading -----------------------------------------------------------------------------------

    def _blocks(self, dropped: Dropped, on_progress: OnProgress) -> Iterator[tuple[_Model, Block]]:
        """The trace in order, a block of one model at a time; the same at every reading."""
        for model in self._models.values():
            model.workload = Workload(model.setup, self._options.seed)
        for part in parts(self._trace, self._map, dropped, on_progress):
            model = self._model(part.target)
            yield model, model.workload.block(part.arrivals, part.senders)

    def _model(self, target: Target) -> _Model:
        if target.name not in self._models:
            configured = self._runtime.models[target.like]
            world = model_world(self._world, configured, target.name)
            setup = ModelSetup(target.name, configured, world)
            workload = Workload(setup, self._options.seed)
            self._models[target.name] = _Model(setup, Measure(setup), workload)
        return self._models[target.name]

    # -- policies ----------------------------------------------------------------------------------

    def _prepare(self, model: _Model, start_s: float, end_s: float) -> Bound:
        """Set up a simulation for every policy; returns the model's optimum."""
        options, warm_s = self._options, min(start_s, WARM_UP_S)
        demand, pool = model.measure.series(start_s, end_s), model.setup.runtime.settings.pool
        bound = bound_of(model.setup, demand, is_warm=warm_s > 0)
        if pool is not None and pool.enabled:
            startup_s = typical(model.setup.world.startup_s)
            model.limit = Limit(model.setup, demand, startup_s, is_warm=warm_s > 0)
        train = model.measure.series(0.0, start_s if start_s > 0 else end_s)
        runs = simulations(
            model.setup,
            self._runtime.settings.controller,
            bound,
            train if options.with_baselines else None,
            options.seed,
            warm_s,
        )
        model.runs = {
            name: (simulation, Tally(model.setup, end_s - start_s, options.interval_s, warm_s))
            for name, simulation in runs.items()
        }
        return bound

    def _share(self, start_s: float, end_s: float) -> None:
        """Set up the pools that several models share; there, nobody has replicas of its own."""
        sharing: defaultdict[str, list[_Model]] = defaultdict(list)
        for model in self._models.values():
            if model.setup.runtime.group:
                sharing[model.setup.runtime.group].append(model)
        interval_s, warm_s = self._options.interval_s, min(start_s, WARM_UP_S)
        for name, models in sharing.items():
            pool = self._pools[name] = SharedPool(
                [model.setup for model in models],
                [model.measure.series(start_s, end_s) for model in models],
                self._runtime.settings.controller,
                self._options.seed,
                Reported(end_s - start_s, interval_s, warm_s),
            )
            for model in models:
                model.pool = pool
                del model.runs[ROUTER], model.runs[CLAIRVOYANT]

    def _finished(
        self, bounds: Mapping[str, Bound], until_s: float, horizon_s: float, dropped: Dropped
    ) -> Replayed:
        policies: dict[str, dict[str, ModelResult]] = {}
        for name, model in self._models.items():
            for policy, (simulation, tally) in model.runs.items():
                tally.add_late(simulation.finish(until_s))
                timeline = tally.close(simulation.replicas.paid(), simulation.throttled)
                policies.setdefault(policy, {})[name] = ModelResult(tally.sums, timeline)
        shared = {}
        for pool_name, pool in self._pools.items():
            shared[pool_name], found = pool.finish(until_s)
            for policy, results_of in found.items():
                for name, (sums, line) in results_of.items():
                    policies.setdefault(policy, {})[name or pool_name] = ModelResult(sums, line)
        for results in policies.values():
            # Without a pool there is nothing to size: all policies are the same.
            for name, result in policies[ROUTER].items():
                if name not in shared:
                    results.setdefault(name, result)
        limits = {
            name: bounds[name].usd if model.limit is None else model.limit.usd()
            for name, model in self._models.items()
        }
        return Replayed(
            policies, bounds, limits, horizon_s, self._options.interval_s, dropped, shared
        )
