"""One shared pool while it is replayed: its models' requests together, and its replicas' own bill.

Joins simulations and sums; decides nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from router.replay.demand import DemandSeries
from router.replay.limit import Limit
from router.replay.policies import Bound, bound_of, shared_simulations, typical
from router.replay.shared import SharedSimulation
from router.replay.tally import Sums, Tally, Timeline
from router.replay.workload import Block, ModelSetup
from router.settings.schema import ControllerSettings


class Reported(NamedTuple):
    """Which part is reported: its length, its intervals, and how long it is warmed up before."""

    horizon_s: float
    interval_s: float
    warm_s: float


class Shared(NamedTuple):
    """What nobody can pay less than who lets these models share: see `Replayed`."""

    models: tuple[str, ...]
    optimum: Bound
    limit_usd: float


class _Run(NamedTuple):
    """One policy: the simulation, and what came of each model and of the replicas."""

    simulation: SharedSimulation
    tallies: Mapping[str, Tally]
    replicas: Tally


class SharedPool:
    """The models of one pool, and the policies that they are run under."""

    def __init__(
        self,
        setups: Sequence[ModelSetup],
        demands: Sequence[DemandSeries],
        controller: ControllerSettings,
        seed: int,
        reported: Reported,
    ) -> None:
        horizon_s, interval_s, warm_s = reported
        self._names = tuple(setup.name for setup in setups)
        self._reported = reported
        first, is_warm = setups[0], warm_s > 0
        demand = DemandSeries.summed(demands)
        self._bound = bound_of(first, demand, is_warm=is_warm)
        self._limit = Limit(first, demand, typical(first.world.startup_s), is_warm=is_warm)
        self._pending: dict[str, Block] = {}
        runs = shared_simulations(setups, controller, self._bound, seed, warm_s)
        self._runs = {
            policy: _Run(
                simulation,
                {setup.name: Tally(setup, horizon_s, interval_s, warm_s) for setup in setups},
                Tally(first, horizon_s, interval_s, warm_s),
            )
            for policy, simulation in runs.items()
        }

    def add(self, name: str, block: Block) -> None:
        """Take a block of one model, which begins with the warm-up.

        Blocks of a stretch of time come one model after the other, and each model once.
        """
        if name in self._pending:
            self._flush()
        self._pending[name] = block

    def _flush(self) -> None:
        blocks, self._pending = self._pending, {}
        warm_s = self._reported.warm_s
        for part in (
            {name: block.before(warm_s) for name, block in blocks.items()},
            {name: block.since(warm_s) for name, block in blocks.items()},
        ):
            coming = {name: block for name, block in part.items() if len(block)}
            for run in self._runs.values() if coming else ():
                for name, results in run.simulation.run(coming).items():
                    run.tallies[name].add(coming[name], results)
        if blocks:
            self._limit.add(Block.merged(list(blocks.values())).between(warm_s))

    def finish(self, until_s: float) -> tuple[Shared, dict[str, dict[str, tuple[Sums, Timeline]]]]:
        """The yardsticks, and by policy what came of each model, and of the replicas as ""."""
        self._flush()
        found = {policy: dict(_closed(run, until_s)) for policy, run in self._runs.items()}
        return Shared(self._names, self._bound, self._limit.usd()), found


def _closed(run: _Run, until_s: float) -> Mapping[str, tuple[Sums, Timeline]]:
    late, throttled = run.simulation.finish(until_s), run.simulation.throttled
    results = {}
    for name, tally in run.tallies.items():
        tally.add_late(late[name])
        # The replicas are nobody's alone.
        results[name] = tally.sums, tally.close(np.zeros((0, 4)), throttled[name])
    run.replicas.add_work_of(run.tallies.values())
    results[""] = run.replicas.sums, run.replicas.close(run.simulation.replicas.paid(), 0)
    return results
