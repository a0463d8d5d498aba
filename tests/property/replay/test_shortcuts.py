"""The simulation's shortcuts take exactly the decisions that `decide` takes, in whole runs."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.replay.simulator import Simulation
from router.replay.workload import Block, ModelSetup
from tests.fakes.replays import make_block, make_setup, router_sizer


@dataclass(frozen=True)
class Scene:
    """A model in a world, and how its requests come."""

    setup: ModelSetup
    per_s: float
    seed: int
    mixed_wishes: bool
    with_deadlines: bool


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Small systems in which queues, spills, refusals and cold starts all happen."""
    slo_ms = draw(st.sampled_from([120, 180, 300, 400, 600, 1200]))
    cold_start = draw(st.sampled_from(["allow", "avoid"]))
    calls = draw(st.sampled_from([1, 3, 50]))
    queued = draw(st.sampled_from([0, 2, 100]))
    minimum = draw(st.sampled_from([0, 0, 1, 2, 5]))
    replicas = draw(st.integers(max(minimum, 1), 12))
    queue = f"queue: {{max_requests: {queued}, max_bytes: 5MB, max_wait: 2s}}"
    environments = draw(st.sampled_from([2, 100, 100]))
    storms = draw(st.sampled_from(["", "", ", refusal_storms: {every_s: 3, for_s: 1}"]))
    curve = draw(st.sampled_from(["", "", "slowdown_at_once: [1, 1.7], "]))
    delay_s = draw(st.sampled_from([0, 0, 2]))
    price = "price: {usd_per_request: 0.00001, usd_per_gb_s: 0.0002}"
    function = (
        f"{{kind: local, max_concurrency: {calls}, service_time_ms: 100, {queue}, {price},"
        " cold_start_ms: 900, idle: 1s, timeout: 1s}"
    )
    pool = (
        f"{{kind: process, min_replicas: {minimum}, max_replicas: {replicas}, concurrency: 2,"
        f" startup: 500ms, min_billing: 2s, {queue}, service_time_ms: 100}}"
    )
    setup = make_setup(
        f"{{{curve}signals_delay_s: {delay_s},"
        " service_time_ms: {lognormal: {p50: 90, p99: 300}},"
        " payload_bytes: {empirical: [9, 99, 300, 900, 2000, 5000, 9000, 4000000, 8000000]},"
        f" serverless: {{overhead_ms: 5, max_concurrency: {environments}{storms}}}}}",
        serverless=draw(st.sampled_from([function, function, None])),
        pool=pool,
        slo=f"{{latency_ms: {slo_ms}, cold_start: {cold_start}}}",
    )
    return Scene(
        setup,
        per_s=draw(st.sampled_from([0.05, 2.0, 20.0, 60.0, 200.0])),
        seed=draw(st.integers(0, 1000)),
        mixed_wishes=draw(st.booleans()),
        with_deadlines=draw(st.sampled_from([False, False, False, True])),
    )


def _blocks(scene: Scene) -> list[Block]:
    generator = np.random.default_rng(scene.seed)
    at = np.cumsum(generator.exponential(1 / scene.per_s, 400))
    columns = {}
    if scene.mixed_wishes:
        columns["wish"] = generator.integers(0, 3, 400)
    if scene.with_deadlines:
        columns["deadline_s"] = np.where(generator.random(400) < 0.5, np.nan, 0.2)
    whole = make_block(scene.setup, at, scene.seed, **columns)
    cut = {name: getattr(whole, name) for name in Block.__slots__}
    return [
        Block(**{name: values[part] for name, values in cut.items()})
        for part in (slice(0, 150), slice(150, 400))
    ]


def _outcomes(scene: Scene, *, shortcuts: bool) -> list[object]:
    simulation = Simulation(scene.setup, router_sizer(scene.setup), scene.seed, shortcuts=shortcuts)
    seen: list[object] = []
    for block in _blocks(scene):
        results = simulation.run(block)
        seen += [repr(results.latency_s.tolist()), results.bits.tolist(), repr(results.late)]
    seen.append(repr(simulation.finish(float(block.at[-1]))))
    seen += [simulation.signals.totals(), simulation.throttled, repr(simulation.replicas.lives)]
    return seen


# Some seconds, but several times that on a machine that does other things as well.
@pytest.mark.timeout(240)
@settings(max_examples=80, deadline=None)
@given(scene=scenes())
def test_shortcuts_change_nothing(scene: Scene) -> None:
    assert _outcomes(scene, shortcuts=True) == _outcomes(scene, shortcuts=False)
