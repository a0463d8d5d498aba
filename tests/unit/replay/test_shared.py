"""Models that share replicas in a replay: as alone where there is one, and better off where not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from router.assembly.runtime import assemble, new_parts
from router.replay.machine import HELD, ON_SERVERLESS
from router.replay.shared import SharedSimulation
from router.replay.simulator import Simulation
from router.replay.sizers import ScheduleSizer, SharedSizer
from router.replay.workload import Block, ModelSetup
from router.replay.world import model_world, parse_world
from router.settings.loader import load_text
from tests.fakes.replays import FUNCTION, Ended, make_block, router_sizer, run_all

_POOL = (
    "{kind: process, max_replicas: 8, concurrency: 2, service_time_ms: 100, startup: 20s,"
    " min_billing: 60s, price_per_replica_hour: 0.036%s}"
)


def setups(*names: str, sharing: str = "{load: 0s}", room: str = "") -> dict[str, ModelSetup]:
    """Models that share a pool."""
    pool = _POOL % (f", model_memory: {room}" if room else "")
    return _setups(names, f"pool: shared, sharing: {sharing}", f"pools: {{shared: {pool}}}")


def lone(*names: str) -> dict[str, ModelSetup]:
    """The same models, each with replicas of its own."""
    return _setups(names, f"pool: {_POOL % ''}", "")


def _setups(names: Sequence[str], pool: str, pools: str) -> dict[str, ModelSetup]:
    models = [
        f"  - {{name: {name}, slo: {{latency_ms: 500}}, {pool}, serverless: {FUNCTION}}}"
        for name in names
    ]
    text = "\n".join([pools, "models:", *models])
    loaded = load_text(
        text, environment={}, base_dir=Path("/nonexistent"), read_file=Path.read_bytes
    )
    runtime = assemble(loaded, new_parts())
    world = parse_world(b"dated: 2026-11-01\ndefault: {service_time_ms: 80}\n", "world.yaml")
    return {
        name: ModelSetup(name, model, model_world(world, model))
        for name, model in runtime.models.items()
    }


def shared(found: Mapping[str, ModelSetup], replicas: int | None = None) -> SharedSimulation:
    """Sized by the router, or with so many replicas at all times."""
    simulation = SharedSimulation(list(found.values()), [1] * len(found))
    if replicas is not None:
        simulation.size_by(ScheduleSizer(np.array([replicas]), 10.0))
        return simulation
    runtime = next(iter(found.values())).runtime
    params, pool = runtime.sizing_params, runtime.settings.pool
    assert params is not None
    assert pool is not None
    slo, duty = runtime.policy.slo, simulation.has_duty
    simulation.size_by(SharedSizer(params, slo, pool.concurrency, (1.0, 10.0), duty))
    return simulation


def outcomes(
    simulation: SharedSimulation, found: Mapping[str, ModelSetup], blocks: Mapping[str, Block]
) -> dict[str, Ended]:
    """Run a block of each to its end."""
    results = simulation.run(blocks)
    late = simulation.finish(max(float(block.at[-1]) for block in blocks.values()))
    ended = {}
    for name, block in blocks.items():
        latency_s, bits = results[name].latency_s.copy(), results[name].bits.copy()
        objective_s = found[name].runtime.policy.slo.latency_s
        rows = {row: index for index, row in enumerate(block.rows(objective_s))}
        for one in (*results[name].late, *late[name]):
            latency_s[rows[one.row]], bits[rows[one.row]] = one.latency_s, one.bits
        assert not (bits & HELD).any()
        ended[name] = Ended(latency_s, bits)
    return ended


def poisson(rate: float, seconds: float, seed: int) -> np.ndarray:
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(2 * rate * seconds))
    at = np.cumsum(gaps)
    found: np.ndarray = at[at < seconds]
    return found


def on_function(ended: Ended) -> float:
    return float(((ended.bits & ON_SERVERLESS) > 0).mean())


@pytest.mark.parametrize("rate", [3.0, 30.0], ids=["too little for a replica", "busy"])
def test_one_model_fares_as_it_would_with_replicas_of_its_own(rate: float):
    found = setups("a")
    block = make_block(found["a"], poisson(rate, 200, 1))
    together = outcomes(shared(found), found, {"a": block})["a"]
    own = lone("a")["a"]
    alone = run_all(Simulation(own, router_sizer(own), 1), block)
    assert np.array_equal(together.bits, alone.bits)
    assert together.latency_s == pytest.approx(alone.latency_s, nan_ok=True)


def test_models_that_pay_for_no_replica_alone_pay_for_one_together():
    found = setups("a", "b", "c")
    blocks = {
        name: make_block(one, poisson(2.0, 900, seed))
        for seed, (name, one) in enumerate(found.items())
    }
    simulation = shared(found)
    together = outcomes(simulation, found, blocks)
    alone = {
        name: run_all(Simulation(one, router_sizer(one), 1), blocks[name])
        for name, one in lone(*found).items()
    }
    assert [on_function(one) for one in alone.values()] == [1.0, 1.0, 1.0]
    assert max(on_function(one) for one in together.values()) < 0.3
    assert len(simulation.replicas.lives) == 1


def test_a_replica_without_room_for_both_has_the_model_with_more_work():
    found = setups("hot", "mild", sharing="{load: 0s, memory: 6MiB}", room="10MiB")
    blocks = {
        "hot": make_block(found["hot"], poisson(10.0, 120, 1)),
        "mild": make_block(found["mild"], poisson(2.0, 120, 2)),
    }
    ended = outcomes(shared(found, replicas=1), found, blocks)
    assert on_function(ended["hot"]) < 0.4
    assert on_function(ended["mild"]) > 0.9


def test_loading_takes_its_time():
    found = setups("a", sharing="{load: 30s}")
    at = np.arange(0.0, 120.0, 0.5)
    ended = outcomes(shared(found, replicas=1), found, {"a": make_block(found["a"], at)})["a"]
    first = float(at[(ended.bits & ON_SERVERLESS) == 0][0])
    assert first == pytest.approx(50.0, abs=1.0)


def test_a_noisy_model_leaves_the_others_their_turn():
    found = setups("noisy", "quiet")
    blocks = {
        "noisy": make_block(found["noisy"], np.linspace(60.0, 61.0, 400)),
        "quiet": make_block(found["quiet"], np.linspace(60.5, 61.5, 8)),
    }
    # Nobody may call a function here, so that all wait for the two slots of one replica.
    simulation = shared(found, replicas=1)
    for member in simulation._members:
        member._function = member._platform = None
    results = simulation.run(blocks)
    late = simulation.finish(200.0)
    waited = [one.latency_s for one in (*results["quiet"].late, *late["quiet"])]
    known = results["quiet"].latency_s[(results["quiet"].bits & HELD) == 0]
    assert max([*waited, *known]) < 1.0
