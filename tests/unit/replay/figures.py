"""Small replays of every kind, and their figures as numbers, kept in figures.json.

`python -m tests.unit.replay.figures` writes them anew: after a change of the policy, never to get a
faster replay through.
"""

import csv
import json
import tempfile
from dataclasses import dataclass
from math import pi, sin
from pathlib import Path
from typing import Any

import numpy as np

from router.assembly.runtime import assemble, new_parts
from router.replay.replay import Replay, Replayed, ReplayOptions
from router.replay.tally import Sums
from router.replay.traces import TraceOptions, open_trace
from router.replay.world import load_world
from router.settings.loader import load

KEPT = Path(__file__).with_name("figures.json")
_RESULTS = Path(__file__).parents[2] / "results"


@dataclass(frozen=True)
class Kept:
    """A replay: models with 1, 1/2, 1/3, .. of the requests, in waves, with settings of results."""

    settings: str
    world: str
    requests: int
    models: int
    hours: float
    burstiness: float = 1.0
    train_share: float = 0.0
    with_baselines: bool = False


CASES = {
    "containers": Kept("container", "container", 12_000, 1, 0.5, with_baselines=True),
    "machines in bursts": Kept("machine", "machine", 15_000, 1, 1.0, burstiness=4, train_share=0.4),
    "GPUs": Kept("gpu-180s", "gpu-180s", 24_000, 1, 1.0, train_share=0.4),
    "too large for functions": Kept("container", "mixture", 6_000, 1, 0.5),
    "storms": Kept("container-sporadic", "storms", 8_000, 1, 0.5),
    "crashes": Kept("container-sporadic", "crashes", 12_000, 1, 0.5),
    "stale counters": Kept("container-sporadic", "stale", 12_000, 1, 0.5),
    "a fleet": Kept("container-sporadic", "container", 30_000, 30, 0.25, train_share=0.4),
    "a careful fleet": Kept("machine", "machine", 3_000, 20, 1.0),
    "a shared pool": Kept("container-shared", "container", 15_000, 10, 0.5, train_share=0.4),
}


def replayed(case: Kept, folder: Path) -> dict[str, Any]:
    """The figures of one case, as they are kept."""
    path = folder / "counts.csv"
    _write_counts(case, path)
    runtime = assemble(load(_RESULTS / "settings" / f"{case.settings}.yaml", {}), new_parts())
    trace = open_trace(path, TraceOptions(burstiness=case.burstiness))
    options = ReplayOptions(
        seed=1, with_baselines=case.with_baselines, train_share=case.train_share, each_like="m"
    )
    world = load_world(_RESULTS / "worlds" / f"{case.world}.yaml")
    return _figures(Replay(runtime, world, trace, options).run())


def _write_counts(case: Kept, path: Path) -> None:
    minutes = round(case.hours * 60)
    shares = [1 / (number + 1) for number in range(case.models)]
    due = [0.0] * case.models
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("t_s", "model", "count"))
        for minute in range(minutes):
            wave = (1 - 0.9 * sin(6 * pi * minute / minutes)) * case.requests / minutes
            for number, share in enumerate(shares):
                due[number] += wave * share / sum(shares)
                if due[number] >= 1:
                    rows.writerow((minute * 60, f"f{number}", int(due[number])))
                    due[number] -= int(due[number])


def _figures(found: Replayed) -> dict[str, Any]:
    bounds = found.bounds.values()
    return {
        "policies": {
            policy: _sums([result.sums for result in results.values()])
            for policy, results in found.policies.items()
        },
        "optimum_usd": sum(bound.usd for bound in bounds),
        "optimum_replica_bins": sum(int(bound.launched.sum()) for bound in bounds),
        "limit_usd": sum(found.limits.values()),
        "replicas_ready": sum(
            float(result.timeline.replicas_ready.sum())
            for results in found.policies.values()
            for result in results.values()
        ),
        "shared_usd": [[one.optimum.usd, one.limit_usd] for one in found.shared.values()],
    }


def _sums(each: list[Sums]) -> dict[str, float]:
    total = Sums()
    for sums in each:
        total.add(sums)
    told = {name: getattr(total, name) for name in Sums.__slots__ if name != "latencies"}
    # One number that any latency in another bin changes.
    told["latencies"] = int(total.latencies @ np.arange(len(total.latencies)))
    return told


def main() -> None:
    """Write all figures anew."""
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: replayed(case, Path(folder)) for name, case in CASES.items()}
    KEPT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
