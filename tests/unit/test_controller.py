import asyncio
import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.admission.retries import RetryBudget
from router.admission.slots import Waiter
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.serverless.function import Function, FunctionParams, KeptWarm
from router.controller import Controller, demand_of, follow
from router.domain.decision import Verdict
from router.policy.canary import Canary
from router.policy.decide import ModelPolicy
from router.policy.deferral import NOTHING, Need, Waiting
from router.policy.demand import Rates
from router.policy.sizing import SizingParams, SizingReason
from router.policy.steering import Slo
from router.policy.trial import CanaryTrial
from router.runtime import ModelRuntime, Runtime, RuntimeRef, SizingState
from router.settings.keys import KeyRing
from router.signals.memory import ModelSignals
from router.signals.snapshot import ALONE, CanaryWord, FleetSnapshot, ModelTotals, SharedEndpoint
from router.signals.window import Window
from router.telemetry.metrics import Metrics
from router.upstream.address import parse_address
from tests.fakes.builders import LIMITS, NOW, FakeClock, make_request
from tests.unit.settings.loading import load_config

TEXT = """
controller: {window: 10s}
models:
  - name: m
    slo: {latency_ms: 250, cold_start: %s}
    serverless: {kind: local}
    pool: {kind: process, concurrency: 2, max_replicas: 3}
"""


def totals(work_s, arrivals=0) -> Any:
    return ModelTotals(arrivals=arrivals, work_s=work_s, serverless_usd=2 * work_s)


class TestWindow:
    def rates(self, *samples, window_s=10.0) -> Rates:
        window = Window(window_s)
        for at, peers in samples:
            window.add(at, {peer: totals(work) for peer, work in peers.items()})
        return window.rates()

    @pytest.mark.parametrize(
        ("samples", "work"),
        [
            ([(0, {"a": 5.0})], 0.0),
            ([(0, {"a": 0.0}), (2, {"a": 1.0})], 0.5),
            ([(0, {"a": 0.0}), (2, {"a": 1.0}), (4, {"a": 1.0})], 0.25),
            ([(0, {"a": 0, "b": 0}), (2, {"a": 1.0, "b": 2.0})], 1.5),
            ([(0, {"a": 0.0}), (2, {"a": 1.0, "b": 900.0})], 0.5),
            ([(0, {"a": 0.0}), (2, {"a": 1.0, "b": 900.0}), (4, {"a": 2, "b": 902})], 1.0),
            ([(0, {"a": 0.0, "b": 50.0}), (2, {"a": 1.0})], 0.5),
            ([(0, {"b": 50.0}), (2, {"b": 3.0})], 0.0),
            ([(0, {"a": 0.0}), (0, {"a": 7.0})], 0.0),
        ],
        ids=[
            "one sample tells no rate",
            "the increase over the time",
            "over the whole window",
            "gateways add up",
            "what a new peer counted before is not an increase",
            "what it counts from then on is",
            "a peer that leaves takes its past along",
            "a peer that starts again is no decrease",
            "two samples at one instant",
        ],
    )
    def test_rates(self, samples, work):
        assert self.rates(*samples).work_s == pytest.approx(work)

    def test_what_is_older_than_the_window_is_forgotten(self):
        samples = [(at, {"a": 100.0 if at >= 1 else 0.0}) for at in range(30)]
        assert self.rates(*samples[:5]).work_s == pytest.approx(25.0)
        assert self.rates(*samples).work_s == 0.0

    def test_a_restarted_peer_counts_again_once_its_past_is_out_of_the_window(self):
        samples = [(at, {"b": 500.0 + at if at < 5 else at - 5.0}) for at in range(30)]
        assert self.rates(*samples).work_s == pytest.approx(1.0)

    def test_every_counter_has_its_own_rate(self):
        window = Window(10.0)
        window.add(0.0, {"a": ModelTotals()})
        window.add(2.0, {"a": ModelTotals(2, 4.0, 6.0, 8, 10.0)})
        assert window.rates() == Rates(1.0, 2.0, 3.0, 4.0, 5.0)

    def test_it_is_bounded_by_the_window_however_often_it_is_fed(self):
        window = Window(10.0)
        for number in range(5000):
            window.add(number / 10, {"a": totals(0.0)})
        assert len(window._samples) <= 102


class Driver:
    """Runs as many replicas as it is told, at once."""

    def __init__(self) -> None:
        self.wants: list[int] = []
        self.billed = 0
        self.adopted = 0
        self.is_shared = False
        self.may_shrink = True

    def want(self, replicas: int, *, may_shrink: bool = True) -> None:
        self.wants.append(replicas)
        self.may_shrink = may_shrink

    def take_over(self) -> int:
        adopted, self.adopted = self.adopted, 0
        return adopted

    async def run(self) -> None:
        raise NotImplementedError


class Setup:
    """A controller over one model, its clock, its driver and what the fleet looks like."""

    def __init__(self, cold_start="allow", beta_s=0.0) -> None:
        self.clock = FakeClock()
        self.driver = Driver()
        self.fleet = ALONE
        pool_params = PoolParams(True, True, 10, 1 << 20, 0.1, 5.0)
        function_params = FunctionParams(
            endpoint_id="m-fn", enabled=True, limits=LIMITS, max_concurrency=20, max_queued=10,
            max_queued_bytes=1 << 20, max_wait_s=30.0, reclaim_s=300.0, usd_per_request=1.0,
            usd_per_billed_s=0.0, service_time_s=0.1, cold_start_s=1.0,
        )  # fmt: skip
        loaded = load_config(TEXT % cold_start)
        self.model = ModelRuntime(
            settings=loaded.settings.models[0],
            policy=ModelPolicy((), Slo(0.25, 99, cold_start == "allow")),
            signals=ModelSignals(),
            budget=RetryBudget(),
            sizing=SizingState(),
            serverless=Function(function_params, None, self.clock),  # type: ignore[arg-type]
            pool=Pool("m", pool_params, None, self.clock, Random(1)),  # type: ignore[arg-type]
            driver=self.driver,
            sizing_params=SizingParams(0, 3, 1.0, 1.0, beta_s, 0.0),
        )
        self.metrics = Metrics(CollectorRegistry(), "0")
        self.metrics.configure(["m"])
        runtime = Runtime(loaded.settings, {"m": self.model}, KeyRing(), "hash")
        self.ref = RuntimeRef(runtime)
        self.controller = Controller(self.ref, lambda: self.fleet, self.metrics, self.clock, "self")

    def arrive(self, requests, work_s=0.1, usd=1.0, captive=False) -> None:
        for _ in range(requests):
            self.model.signals.arrived(work_s, usd, captive)

    def steps(self, number, requests=0, **facts) -> None:
        for _ in range(number):
            self.arrive(requests, **facts)
            self.clock.advance(1.0)
            self.controller.step()

    @property
    def pool(self) -> Any:
        assert self.model.pool is not None
        return self.model.pool

    def replica(self, name, is_local=True, is_ready=True) -> None:
        address = parse_address("http://127.0.0.1:1")
        self.pool.add(Endpoint(name, address, 2, is_local=is_local))
        self.pool.mark_ready(name, is_ready=is_ready)


@pytest.fixture
def setup():
    setup = Setup()
    setup.controller.step()
    return setup


def has_duty(setup) -> bool:
    return demand_of(setup.model, Rates(0.0, 0.0, 0.0, 0.0, 0.0), NOW).latency_duty


class TestSizing:
    def test_silence_wants_nothing(self, setup):
        setup.steps(3)
        assert setup.driver.wants[-1] == 0
        assert setup.model.sizing.reason is SizingReason.IDLE

    def test_paying_traffic_wants_what_carries_it(self, setup):
        # 30 requests/s of 0.1 s on replicas with two slots: 1.5 replicas, 20 USD/s each.
        setup.steps(12, requests=30)
        assert setup.model.sizing.load == pytest.approx(1.5)
        assert setup.model.sizing.arrivals_per_s == pytest.approx(30)
        assert (setup.driver.wants[-1], setup.pool.wanted) == (2, 2)

    def test_captive_work_is_carried_whatever_it_costs(self, setup):
        setup.steps(12, requests=1, usd=0.0, captive=True)
        assert setup.driver.wants[-1] == 1
        assert setup.model.sizing.reason is SizingReason.CAPTIVE_WORK

    def test_the_load_of_other_gateways_counts(self, setup):
        for step in range(12):
            peer = {"m": ModelTotals(work_s=4.0 * step, serverless_usd=40.0 * step)}
            setup.fleet = FleetSnapshot({"peer": peer}, {}, {}, True, setup.clock())
            setup.steps(1)
        assert setup.model.sizing.load == pytest.approx(2.0)
        assert setup.driver.wants[-1] == 2

    def test_a_model_that_is_gone_is_forgotten(self, setup):
        setup.steps(2, requests=1)
        runtime = setup.ref.current
        setup.ref.swap(Runtime(runtime.settings, {}, KeyRing(), "hash2"))
        setup.steps(1)
        assert setup.controller._windows == {}
        assert setup.controller._bills == {}

    def test_the_start_of_the_first_replica_is_timed(self, setup):
        setup.steps(5, requests=30)
        started = setup.pool.starting_since
        assert started is not None
        assert started < setup.clock()
        setup.replica("e1")
        setup.steps(1, requests=30)
        assert setup.pool.starting_since is None


def _reload(setup) -> None:
    runtime = setup.ref.current
    setup.ref.swap(Runtime(runtime.settings, {"m": replace(setup.model)}, KeyRing(), "hash2"))


def _theirs(setup, peers=None, endpoints=None, taken_at=math.inf) -> None:
    setup.fleet = FleetSnapshot(peers or {}, endpoints or {}, {}, True, taken_at)


REPLICA = SharedEndpoint("e", "http://127.0.0.1:1", 2, "peer")
CHANGES = {
    "a request": lambda setup: setup.arrive(1),
    "a request elsewhere": lambda setup: _theirs(setup, {"peer": {"m": ModelTotals(arrivals=1)}}),
    "a replica elsewhere": lambda setup: _theirs(setup, None, {"m": (REPLICA,)}),
    "a replica here": lambda setup: setup.replica("e"),
    "a replica that is starting": lambda setup: setattr(setup.driver, "billed", 1),
    "a request that waits": lambda setup: setup.pool.join(Waiter(), make_request()),
    "a call of the function": lambda setup: setattr(setup.model.serverless, "in_flight", 1),
    "signals too old": lambda setup: _theirs(setup, taken_at=setup.clock() - 60),
    "a job that waits": lambda setup: setattr(setup.model.sizing, "waiting", Waiting((), 1.0, NOW)),
    "a wake": lambda setup: setup.controller.wake(),
    "a reload": _reload,
}


class TestRest:
    """A step passes over who has nothing to do."""

    def test_it_is_sized_now_and_then(self, setup):
        setup.steps(3)
        before = len(setup.driver.wants)
        setup.steps(5)
        assert len(setup.driver.wants) == before
        setup.steps(10)
        assert len(setup.driver.wants) == before + 1

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    async def test_until_something_changes(self, setup, change):
        setup.steps(3)
        before = len(setup.driver.wants)
        change(setup)
        setup.steps(1)
        assert len(setup.driver.wants) == before + 1

    def test_until_its_last_environment_is_cold(self):
        setup = Setup(cold_start="avoid")
        function: Any = setup.model.serverless
        function.environments.give_back(NOW, expected_warm=False, was_cold=True)
        setup.clock.advance(295.0)
        setup.steps(2)
        assert setup.driver.wants[-1] == 0
        setup.steps(5)
        assert setup.driver.wants[-1] == 1, "a cold start would break the objective"

    @pytest.mark.parametrize("seed", range(8))
    def test_it_changes_nothing(self, seed):
        """Traffic in bursts: what is wanted, and the bill, are those of a step every second."""
        resting, awake = Setup(beta_s=5.0), Setup(beta_s=5.0)
        never: Any = awake.controller._resting
        never.holds = lambda *_facts, **_more: False
        rng, passed_over = Random(seed), 0
        for _ in range(30):
            burst = [rng.choice([0, 1, 20, 60])] * rng.randrange(1, 5)
            for requests in [*burst, *([0] * rng.randrange(40))]:
                for setup in (resting, awake):
                    setup.steps(1, requests=requests)
                    setup.driver.billed = setup.driver.wants[-1]
                passed_over += len(awake.driver.wants) - len(resting.driver.wants)
                ours, theirs = resting.model.sizing, awake.model.sizing
                assert (ours.wanted, ours.reason) == (theirs.wanted, theirs.reason)
                assert ours.load == pytest.approx(theirs.load)
                assert ours.arrivals_per_s == pytest.approx(theirs.arrivals_per_s)
                assert ours.alternatives_usd == pytest.approx(theirs.alternatives_usd)
                assert ours.warm_idle_usd == pytest.approx(theirs.warm_idle_usd)
        assert passed_over


class TestJobs:
    """Replicas cost a dollar a second here, and a second of work on serverless ten."""

    def wait(self, setup, work_s, window_s, seen_s_ago=0.0) -> None:
        now = setup.clock()
        need = Need(now + window_s, work_s, 10.0 * work_s)
        setup.model.sizing.waiting = Waiting((need,), 3.0, now - seen_s_ago)

    def test_work_whose_window_forces_it_has_replicas_started(self, setup):
        self.wait(setup, 100.0, 110.0)
        setup.steps(1)
        assert setup.driver.wants[-1] == 1
        assert setup.model.sizing.reason is SizingReason.BATCH_DEADLINE
        assert (setup.model.sizing.alone, setup.model.sizing.deferral.replicas) == (0, 1)

    def test_work_that_may_still_wait_has_none(self, setup):
        self.wait(setup, 100.0, 3600.0)
        setup.steps(1)
        assert setup.driver.wants[-1] == 0

    def test_work_that_waits_no_more_keeps_none(self, setup):
        self.wait(setup, 100.0, 110.0)
        setup.steps(1)
        setup.model.sizing.waiting = None
        setup.steps(1)
        assert setup.driver.wants[-1] == 0
        assert setup.model.sizing.deferral is NOTHING

    def test_work_of_which_nothing_is_heard_any_more_keeps_none(self, setup):
        self.wait(setup, 100.0, 110.0, seen_s_ago=40.0)
        setup.steps(1)
        assert setup.driver.wants[-1] == 0


class TestAdoptedReplicas:
    def test_they_are_wanted_until_they_have_cost_a_start_for_nothing(self):
        setup = Setup(beta_s=10.0)
        setup.driver.adopted = 2
        setup.steps(5)
        assert setup.driver.wants[-1] == 2
        setup.steps(10)
        assert setup.driver.wants[-1] == 0

    def test_no_more_are_wanted_than_the_pool_may_have(self):
        setup = Setup(beta_s=10.0)
        setup.driver.adopted = 9
        setup.steps(1)
        assert setup.driver.wants[-1] == 3


class TestLeaderAndFollowers:
    def follow(self, setup, is_leader, elsewhere=0, wanted_load=30) -> Any:
        for number in range(elsewhere):
            setup.replica(f"theirs{number}", is_local=False)
        told = tuple(
            SharedEndpoint(f"theirs{number}", "http://127.0.0.1:1", 2, "peer")
            for number in range(elsewhere)
        )
        setup.fleet = FleetSnapshot({}, {"m": told}, {}, is_leader, math.inf)
        setup.steps(12, requests=wanted_load)
        return setup.driver.wants[-1]

    def test_the_leader_starts_what_is_missing(self, setup):
        assert self.follow(setup, is_leader=True) == 2

    def test_the_leader_counts_what_others_run(self, setup):
        assert self.follow(setup, is_leader=True, elsewhere=1) == 1

    def test_a_follower_starts_nothing(self, setup):
        assert self.follow(setup, is_leader=False) == 0

    def test_a_follower_keeps_what_it_runs_while_it_is_wanted(self, setup):
        setup.driver.billed = 1
        assert self.follow(setup, is_leader=False) == 1

    def test_a_follower_gives_up_what_is_wanted_no_more(self, setup):
        setup.driver.billed = 3
        assert self.follow(setup, is_leader=False, wanted_load=0) == 0

    def test_a_follower_gives_up_what_others_run(self, setup):
        setup.driver.billed = 2
        assert self.follow(setup, is_leader=False, elsewhere=1) == 1

    @pytest.mark.parametrize(("age_s", "stale"), [(2.9, False), (3.1, True)])
    def test_stale_signals_are_marked(self, setup, age_s, stale):
        setup.fleet = FleetSnapshot({}, {}, {}, True, setup.clock() + 1.0 - age_s)
        setup.steps(1)
        assert setup.pool.signals_stale is stale


class TestSharedReplicas:
    """Pods, which every gateway sees: they are nobody's own."""

    @pytest.fixture
    def shared(self):
        setup = Setup()
        setup.driver.is_shared = True
        setup.replica("pod")
        return setup

    def test_the_leader_asks_for_all_of_them_again_and_again(self, shared):
        shared.steps(12, requests=30)
        assert shared.driver.wants[-2:] == [2, 2]
        assert shared.driver.may_shrink

    def test_a_follower_asks_for_nothing(self, shared):
        shared.fleet = FleetSnapshot({}, {}, {}, is_leader=False, taken_at=math.inf)
        shared.steps(12, requests=30)
        assert shared.driver.wants == []

    @pytest.mark.parametrize("leads", [True, False])
    def test_only_the_leader_pays_for_them(self, shared, leads):
        shared.driver.billed = 2
        shared.fleet = FleetSnapshot({}, {}, {}, is_leader=leads, taken_at=math.inf)
        shared.steps(10)
        sizing = shared.model.sizing
        assert (sizing.warm_busy_usd + sizing.warm_idle_usd > 0) is leads

    def test_without_the_others_counters_none_is_taken_away(self, shared):
        shared.fleet = FleetSnapshot({}, {}, {}, is_leader=True, taken_at=shared.clock() - 10)
        shared.steps(1)
        assert not shared.driver.may_shrink


class TestAlternatives:
    """What the same requests would have cost elsewhere, beside the bill."""

    def cost(self, setup, alternative) -> float:
        series = dict(setup.metrics.snapshot().values["router_alternative_cost_usd_total"])
        assert series["m", alternative] == setup.model.sizing.alternatives_usd[alternative]
        return float(series["m", alternative])

    def test_with_functions_only_it_is_what_each_call_costs(self, setup):
        setup.steps(10, requests=3, usd=0.5)
        setup.steps(5)
        assert self.cost(setup, "always_serverless") == pytest.approx(10 * 3 * 0.5)

    def test_always_warm_it_is_replicas_for_the_highest_load_all_the_time(self, setup):
        setup.steps(10)
        assert self.cost(setup, "always_warm") == pytest.approx(10)  # one replica, a USD a second
        setup.steps(20, requests=30)  # 1.5 replicas, and room
        before = self.cost(setup, "always_warm")
        setup.steps(100)
        assert self.cost(setup, "always_warm") - before == pytest.approx(200)

    def test_only_the_leader_counts_replicas_that_all_would_have(self, setup):
        setup.fleet = FleetSnapshot({}, {}, {}, is_leader=False, taken_at=math.inf)
        setup.steps(5, requests=1)
        assert not setup.model.sizing.alternatives_usd.get("always_warm")


class TestFollow:
    def test_replicas_of_others_come_and_go_and_ours_stay(self, setup):
        setup.replica("ours")
        theirs = SharedEndpoint("theirs", "http://127.0.0.1:9", 4, "peer")
        follow(setup.pool, [theirs], {"ours": 1, "theirs": 3})
        found = setup.pool.endpoints["theirs"]
        assert (found.capacity, found.is_local, found.is_ready) == (4, False, False)
        assert setup.pool.endpoints["ours"].peer_in_flight == 1
        follow(setup.pool, [theirs], {"theirs": 3})
        assert setup.pool.endpoints["theirs"] is found
        assert found.peer_in_flight == 3
        follow(setup.pool, [], {})
        assert list(setup.pool.endpoints) == ["ours"]
        assert setup.pool.endpoints["ours"].peer_in_flight == 0


class TestCost:
    def test_replicas_are_split_into_busy_and_idle(self, setup):
        setup.driver.billed = 2
        setup.pool._used_s[""] += 0.5
        setup.steps(1)
        sizing = setup.model.sizing
        assert (sizing.warm_busy_usd, sizing.warm_idle_usd) == pytest.approx((0.5, 1.5))
        setup.steps(1)
        assert (sizing.warm_busy_usd, sizing.warm_idle_usd) == pytest.approx((0.5, 3.5))

    def test_work_of_before_is_never_more_than_what_is_billed(self, setup):
        setup.driver.billed = 1
        setup.pool._used_s[""] += 5.0
        setup.steps(1)
        sizing = setup.model.sizing
        assert (sizing.warm_busy_usd, sizing.warm_idle_usd) == pytest.approx((1.0, 0.0))

    def test_nothing_runs_so_nothing_costs(self, setup):
        setup.steps(5, requests=30)
        assert setup.model.sizing.warm_idle_usd == 0.0

    @pytest.mark.parametrize("leads", [True, False])
    def test_environments_that_are_kept_warm_cost_all_the_time_and_once(self, setup, leads):
        kept = KeptWarm(environments=2, usd_per_s=0.25)
        setup.model.serverless.params = replace(setup.model.serverless.params, kept_warm=kept)
        setup.fleet = FleetSnapshot({}, {}, {}, is_leader=leads, taken_at=math.inf)
        setup.steps(5)
        usd = 5 * 0.25 if leads else 0.0
        assert setup.model.sizing.kept_warm_usd == usd
        exposed = setup.metrics.expose("")[0].decode()
        assert f'router_cost_usd_total{{model="m",part="kept_warm"}} {usd}' in exposed

    def test_metrics_show_the_same(self, setup):
        setup.driver.billed = 1
        setup.pool._used_s[""] += 0.25
        setup.steps(1)
        exposed = setup.metrics.expose("")[0].decode()
        assert 'router_cost_usd_total{model="m",part="warm_busy"} 0.25' in exposed
        assert 'router_cost_usd_total{model="m",part="warm_idle"} 0.75' in exposed

    def test_tenants_pay_for_their_use_and_for_its_share_of_idle_time(self, setup):
        setup.metrics.configure(["m"], callers={"key": "batch", "other": "web"})
        setup.driver.billed = 1
        setup.pool._used_s |= {"batch": 0.3, "web": 0.1, "unknown": 0.1}
        setup.steps(1)
        paid = dict(setup.metrics.snapshot().values["router_tenant_cost_usd_total"])
        assert paid["batch", "warm_busy"] == pytest.approx(0.3)
        assert paid["web", "warm_idle"] == pytest.approx(0.1)
        assert paid["", "warm_busy"] == pytest.approx(0.1), "no key of today has that tenant"
        assert sum(paid.values()) == pytest.approx(1.0)


class TestLatencyDuty:
    def learn(self, setup, warm_s, calls=100) -> None:
        for _ in range(calls):
            setup.model.serverless.service_times.observe(300, warm_s)

    @pytest.mark.parametrize(
        ("cold_start", "warm_s", "is_warm", "duty"),
        [
            ("allow", 0.1, False, False),
            ("allow", 0.5, True, True),
            ("avoid", 0.1, False, True),
            ("avoid", 0.1, True, False),
        ],
        ids=[
            "a cold call now and then is allowed",
            "even a warm call is too slow",
            "cold calls are to be avoided and likely",
            "cold calls are to be avoided and unlikely",
        ],
    )
    def test_duty(self, cold_start, warm_s, is_warm, duty):
        setup = Setup(cold_start)
        self.learn(setup, warm_s)
        function = setup.model.serverless
        assert function is not None
        if is_warm:
            function.environments.give_back(NOW, expected_warm=False, was_cold=True)
        assert has_duty(setup) is duty

    def test_a_function_that_serves_is_warm_for_most(self):
        setup = Setup("avoid")
        self.learn(setup, 0.1)
        function = setup.model.serverless
        assert function is not None
        lease = function.try_reserve(make_request(), NOW)
        assert lease is not None
        assert has_duty(setup) is False
        lease.release(Verdict.CANCELLED, NOW, None)
        assert has_duty(setup) is True

    def test_duty_keeps_one_replica(self):
        setup = Setup("avoid")
        self.learn(setup, 0.1)
        setup.steps(2)
        assert setup.driver.wants[-1] == 1
        assert setup.model.sizing.reason is SizingReason.LATENCY_DUTY


async def test_a_wake_makes_it_step_at_once(setup):
    task = asyncio.create_task(setup.controller.run())
    await asyncio.sleep(0)
    before = len(setup.driver.wants)
    setup.controller.wake()
    async with asyncio.timeout(0.9):  # less than the interval of one second
        while len(setup.driver.wants) == before:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])


class TestCanaries:
    @pytest.mark.parametrize(
        ("is_same", "expected"), [(True, True), (False, False)], ids=["the same", "another"]
    )
    def test_what_another_gateway_rolled_back_is_rolled_back(self, setup, is_same, expected):
        trial = CanaryTrial(Canary("m", "n", None, 0.5))
        runtime = setup.ref.current
        setup.ref.swap(replace(runtime, trials={"r": trial}))
        digest = trial.digest if is_same else "0" * 16
        words = {"r": (CanaryWord(digest, 0, True),)}
        setup.fleet = FleetSnapshot({}, {}, {}, True, math.inf, canaries=words)
        setup.steps(1)
        assert trial.is_rolled_back is expected
