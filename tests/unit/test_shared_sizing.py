"""How the controller sizes a pool that models share, and whose bill it is."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from router.admission.slots import Waiter
from router.backends.pool.endpoint import Endpoint
from router.controller import Controller
from router.domain.decision import Verdict
from router.policy.sizing import SizingReason
from router.runtime import RuntimeRef
from router.signals.snapshot import ALONE
from router.telemetry.metrics import Metrics
from router.upstream.address import parse_address
from tests.fakes.builders import FakeClock, make_request
from tests.fakes.runtimes import make_runtime
from tests.unit.test_controller import Driver

TEXT = """
pools:
  cpu:
    {kind: process, concurrency: 2, max_replicas: 4, startup: 1s, price_per_replica_hour: 36}
models:
  - {name: a, slo: {latency_ms: 500}, pool: cpu, serverless: {kind: local}}
  - {name: b, slo: {latency_ms: 500}, pool: cpu, serverless: {kind: local}}
"""


class Shared:
    """A controller over two models that share a pool; a replica costs 0.01 USD a second."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.runtime = make_runtime(TEXT, self.clock)
        self.driver = Driver()
        self.group = replace(self.runtime.groups["cpu"], driver=self.driver)
        self.runtime = replace(self.runtime, groups={"cpu": self.group})
        metrics = Metrics(CollectorRegistry(), "0")
        metrics.configure(self.runtime.models)
        ref = RuntimeRef(self.runtime)
        self.controller = Controller(ref, lambda: ALONE, metrics, self.clock, "self")
        self.controller.step()

    def steps(self, number: int, work_s: dict[str, float], usd_per_work: float = 1.0) -> None:
        for _ in range(number):
            for name, work in work_s.items():
                self.runtime.models[name].signals.arrived(work, work * usd_per_work, False)
            self.clock.advance(1.0)
            self.controller.step()

    def replica(self) -> Endpoint:
        host = Endpoint("r", parse_address("http://127.0.0.1:1"), 2)
        self.group.pool.add(host)
        self.group.pool.mark_ready("r", is_ready=True)
        for member in self.group.members.members.values():
            member.settle(host)
        return host


@pytest.fixture
async def shared() -> Shared:
    return Shared()


async def test_replicas_are_wanted_for_what_the_models_ask_together(shared: Shared):
    # 0.7 replicas each: together two are wanted, where each alone would want one.
    shared.steps(15, {"a": 1.4, "b": 1.4})
    assert shared.group.sizing.load == pytest.approx(1.4)
    assert (shared.group.sizing.wanted, shared.group.sizing.reason) == (
        2,
        SizingReason.RENT_OR_BUY,
    )


async def test_work_that_pays_for_no_replica_alone_pays_for_one_together(shared: Shared):
    for _ in range(20):
        shared.steps(1, {"a": 0.5}, usd_per_work=0.015)
    assert shared.group.sizing.wanted == 0
    for _ in range(300):
        shared.steps(1, {"a": 0.5, "b": 0.5}, usd_per_work=0.015)
    assert shared.group.sizing.wanted == 1


async def test_a_member_is_told_of_the_groups_replicas_once_it_has_work(shared: Shared):
    shared.steps(15, {"a": 3.0})
    pools = {name: model.pool for name, model in shared.runtime.models.items()}
    assert {name: pool.wanted for name, pool in pools.items() if pool is not None} == {
        "a": 2,
        "b": 0,
    }


async def test_who_waits_for_a_model_to_be_loaded_asks_for_no_more_replicas(shared: Shared):
    member = shared.group.members.members["a"]
    host = shared.replica()
    member.remove(host.id)
    member.join(Waiter(), make_request(model="a"))
    shared.steps(3, {})
    assert (shared.group.sizing.wanted, member.is_awaited) == (0, True)


async def test_the_bill_is_split_by_work(shared: Shared):
    shared.replica()
    shared.steps(1, {"a": 1.5, "b": 0.5})
    a, b = (shared.runtime.models[name] for name in "ab")
    assert a.pool is not None
    place = a.pool.reserve_warm(shared.clock())
    assert place is not None
    shared.clock.advance(0.5)
    a.pool.release(place, Verdict.OK, shared.clock() - 0.5, shared.clock())
    shared.driver.billed = 1
    shared.steps(1, {})
    assert a.sizing.warm_busy_usd == pytest.approx(0.0025)
    assert b.sizing.warm_busy_usd == 0.0
    idle = a.sizing.warm_idle_usd, b.sizing.warm_idle_usd
    assert sum(idle) == pytest.approx(0.0125)
    assert idle[0] > idle[1] > 0
