"""Replays for tests: a configured model in a stated world, requests for it, and their outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.assembly.runtime import assemble, new_parts
from router.replay.arrivals import Sender, bare
from router.replay.machine import HELD
from router.replay.simulator import Simulation
from router.replay.sizers import RouterSizer
from router.replay.workload import Block, ModelSetup, Workload
from router.replay.world import model_world, parse_world
from router.runtime import Runtime
from router.settings.loader import load_text

FUNCTION = (
    "{kind: local, memory_mb: 1024, max_concurrency: 1000, service_time_ms: 100,"
    " cold_start_ms: 1000, price: {usd_per_request: 0.000001, usd_per_gb_s: 0.00002}}"
)
POOL = (
    "{kind: process, max_replicas: 8, concurrency: 2, service_time_ms: 100, startup: 20s,"
    " min_billing: 60s, price_per_replica_hour: 0.036}"
)


def make_runtime(
    serverless: str | None = FUNCTION, pool: str | None = POOL, slo: str = "{latency_ms: 500}",
    rules: str = "",
) -> Runtime:  # fmt: skip
    """The runtime of one model called `m`."""
    lines = ["models:", "  - name: m", f"    slo: {slo}"]
    lines += [f"    serverless: {serverless}"] if serverless else []
    lines += [f"    pool: {pool}"] if pool else []
    loaded = load_text(
        "\n".join(lines) + "\n" + rules,
        environment={},
        base_dir=Path("/nonexistent"),
        read_file=Path.read_bytes,
    )
    return assemble(loaded, new_parts())


def make_setup(world: str = "{}", **config: Any) -> ModelSetup:
    """Model `m` as configured, in a world whose default model is `world`."""
    model = make_runtime(**config).models["m"]
    written = f"dated: 2026-11-01\ndefault: {world}\n"
    return ModelSetup("m", model, model_world(parse_world(written.encode(), "world.yaml"), model))


def make_block(
    setup: ModelSetup, at: Sequence[float] | np.ndarray, seed: int = 1, **columns: Any
) -> Block:
    """Requests at these times; `columns` replaces columns of the block."""
    times = np.asarray(at, np.float64)
    block = Workload(setup, seed).block(bare(times, 0), [Sender()])
    given = {name: np.asarray(values) for name, values in columns.items()}
    return Block(**{name: given.get(name, getattr(block, name)) for name in Block.__slots__})


def router_sizer(
    setup: ModelSetup,
    interval_s: float = 1.0,
    window_s: float = 10.0,
    kind: type[RouterSizer] = RouterSizer,
) -> RouterSizer:
    """The router's own sizing of the model."""
    params, pool = setup.runtime.sizing_params, setup.runtime.settings.pool
    assert params is not None
    assert pool is not None
    return kind(params, setup.runtime.policy.slo, pool.concurrency, interval_s, window_s)


@dataclass(frozen=True, slots=True)
class Ended:
    """All outcomes, in the order of the requests."""

    latency_s: np.ndarray
    bits: np.ndarray


def run_all(simulation: Simulation, block: Block, horizon_s: float | None = None) -> Ended:
    """Run one block to its end."""
    results = simulation.run(block)
    latency_s, bits = results.latency_s.copy(), results.bits.copy()
    end = float(block.at[-1]) if horizon_s is None else horizon_s
    rows = {row: index for index, row in enumerate(block.rows(simulation.objective_s))}
    for late in (*results.late, *simulation.finish(end)):
        latency_s[rows[late.row]] = late.latency_s
        bits[rows[late.row]] = late.bits
    assert not (bits & HELD).any()
    return Ended(latency_s, bits)
