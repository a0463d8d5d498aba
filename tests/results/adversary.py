"""Traffic that is made to hurt: square waves, steps, trickles, and one that watches the router.

Each is written as a trace, so that the ordinary command replays it; the same bytes every time.
"""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from router.assembly.runtime import assemble, new_parts
from router.replay.arrivals import Sender, bare
from router.replay.policies import router_simulation
from router.replay.workload import ModelSetup, Workload
from router.replay.world import load_world, model_world
from router.settings.loader import load
from router.settings.schema import ControllerSettings
from tests.results.cases import ADVERSARY, HERE, Case

_BIN_S = 5.0
_SEED = 1


class Regime(NamedTuple):
    """A world and its settings, its start-up time, and what one replica serves per second."""

    name: str
    startup_s: float
    replica_per_s: float


REGIMES = (
    Regime("container", 57.0, 10.0),
    Regime("machine", 20.0, 20.0),
    Regime("gpu-180s", 180.0, 10.0),
    Regime("gpu-300s", 300.0, 10.0),
)
Rate = Callable[[Regime, float], float]
"""Requests per second of a regime at a time."""


def _square(regime: Regime, at: float) -> float:
    period_s = 2 * regime.startup_s
    return 3 * regime.replica_per_s if at % period_s < regime.startup_s else 0.0


def _steps(regime: Regime, at: float) -> float:
    return (10 if at % 3600 >= 1800 else 1) * 0.7 * regime.replica_per_s


def _trickle(_regime: Regime, _at: float) -> float:
    return 0.01


def _day(regime: Regime, at: float) -> float:
    """Between one and seven replicas' work, for the worlds that misbehave."""
    return float(4.0 - 3.0 * np.cos(2 * np.pi * at / 3600.0)) * regime.replica_per_s


class Shape(NamedTuple):
    """One kind of traffic and for how long."""

    title: str
    rate: Rate
    hours: float


SHAPES = {
    "square": Shape("square waves of two start-ups", _square, 2),
    "steps": Shape("steps by ten", _steps, 2),
    "trickle": Shape("0.01 requests a second", _trickle, 50),
}
_WATCHER_HOURS = 2.0
_HOURS = "hours"
_STRESSED = {
    "storms": "429 from the platform for one minute in five",
    "crashes": "each replica crashes after ten minutes on average",
    "stale": "sizing sees counters 30 s old",
}


def _case(regime: Regime, kind: str, title: str) -> Case:
    name = f"{kind}-{regime.name}"
    return Case(
        name, ADVERSARY, f"{title}, {regime.name}", f"{name}.csv",
        f"{regime.name}-sporadic", regime.name, is_made=True, train_share=0.0,
    )  # fmt: skip


def cases() -> tuple[Case, ...]:
    """All cases of the suite."""
    shaped = [
        _case(regime, name, shape.title) for regime in REGIMES for name, shape in SHAPES.items()
    ]
    watched = [_case(regime, "watcher", "stops when it is served") for regime in REGIMES]
    first = REGIMES[0]
    stressed = [
        replace(_case(first, _HOURS, title), name=name, title=title, world=name)
        for name, title in _STRESSED.items()
    ]
    return (*shaped, *watched, *stressed)


# -- traces ----------------------------------------------------------------------------------------


def write(folder: Path) -> None:
    """Write the traces of all cases; one of them depends on the policy, so each time anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for regime in REGIMES:
        for name, shape in SHAPES.items():
            _write_counts(folder / f"{name}-{regime.name}.csv", regime, shape)
        _write_watched(folder / f"watcher-{regime.name}.csv", regime)
    _write_counts(folder / f"{_HOURS}-{REGIMES[0].name}.csv", REGIMES[0], Shape("", _day, 1))


def _write_counts(path: Path, regime: Regime, shape: Shape) -> None:
    due = 0.0
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("t_s", "model", "count"))
        for number in range(round(shape.hours * 3600 / _BIN_S)):
            due += shape.rate(regime, number * _BIN_S) * _BIN_S
            rows.writerow((f"{number * _BIN_S:g}", "m", int(due)))
            due -= int(due)


def _write_watched(path: Path, regime: Regime) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("timestamp", "model", "payload_bytes"))
        rows.writerows((f"{at:.10g}", "m", 1024) for at in watched(regime, _WATCHER_HOURS))


def watched(regime: Regime, hours: float) -> list[float]:
    """Arrivals that stop once a replica is ready, and come back once there is none.

    Found by watching a simulation second by second, which the replay of these arrivals repeats.
    """
    setup, controller = _setup(regime)
    simulation = router_simulation(setup, controller, _SEED)
    workload = Workload(setup, _SEED)
    per_s = round(regime.replica_per_s)
    found: list[float] = []
    for second in range(round(hours * 3600)):
        if not simulation.ready:
            at = second + np.arange(per_s) / per_s
            simulation.run(workload.block(bare(at, 0), [Sender()]))
            found += at.tolist()
        simulation.advance(second + 1 - 1e-6)
    return found


def _setup(regime: Regime) -> tuple[ModelSetup, ControllerSettings]:
    case = _case(regime, "", "")
    runtime = assemble(load(HERE / "settings" / f"{case.settings}.yaml", {}), new_parts())
    model = runtime.models["m"]
    world = load_world(HERE / "worlds" / f"{case.world}.yaml")
    return ModelSetup("m", model, model_world(world, model)), runtime.settings.controller
