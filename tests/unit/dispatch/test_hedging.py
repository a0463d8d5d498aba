"""Races of two attempts with a real pool, function and policy; callers answer when told to."""

import asyncio
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.admission.hedging import HedgeParams, Hedging
from router.admission.retries import RetryBudget
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.serverless.function import Function, FunctionParams
from router.dispatch.attempts import Record
from router.dispatch.chain import Link
from router.dispatch.director import Director
from router.domain.decision import Backend, Reason
from router.domain.errors import ResponseLostError
from router.domain.ports import BackendResponse
from router.policy.decide import ModelPolicy
from router.policy.rules import Match, Route, Rule
from router.policy.steering import Slo
from router.runtime import ModelRuntime, SizingState
from router.signals.memory import ModelSignals
from router.telemetry.metrics import Metrics
from router.turns import at_once
from router.upstream.address import parse_address
from tests.fakes.builders import LIMITS, FakeClock, make_request
from tests.fakes.callers import WholeCalls
from tests.unit.settings.loading import load_config

SLOW_S = 0.02
SETTINGS = """
models:
  - name: m
    slo: {latency_ms: 250}
    serverless: {kind: local}
    pool: {kind: static, urls: ["http://127.0.0.1:1"]}
"""


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


POOL_RULE = (Rule("warm", Match(), Route(backend=Backend.POOL)),)


class Callers(WholeCalls):
    """Both kinds of caller. Each call waits for its own event, or answers at once."""

    def __init__(self, clock) -> None:
        self.clock = clock
        self.calls: list[str] = []
        self.cancelled: list[str] = []
        self.hangs = {"e1"}
        self.fails: set[str] = set()
        self.released = asyncio.Event()

    async def _answer(self, where) -> BackendResponse:
        self.calls.append(where)
        try:
            if where in self.hangs:
                await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled.append(where)
            raise
        if where in self.fails:
            raise ResponseLostError(where)
        return BackendResponse(200, [], where.encode())

    async def send(self, address, request, body, timeout_s) -> Any:
        return await self._answer(f"e{address.port}")

    async def call(self, request, body, timeout_s) -> Any:
        return await self._answer("fn")


class Race:
    """Model `m` with two replicas of one slot and a function, whose slow ones are known."""

    def __init__(self, *, function=True, share=0.5, rules=()) -> None:
        self.clock = FakeClock()
        self.callers = Callers(self.clock)
        self.metrics = Metrics(CollectorRegistry(), "0")
        self.metrics.configure(["m"])
        self.pool = Pool("m", PoolParams(True, False, 10, 1 << 20, 0.01, 5.0), self.callers,  # type: ignore[arg-type]
                         self.clock, Random(1))  # fmt: skip
        for number in (1, 2):
            self.pool.add(Endpoint(f"e{number}", parse_address(f"http://127.0.0.1:{number}"), 1))
            self.pool.mark_ready(f"e{number}", is_ready=True)
        self.function = Function(
            FunctionParams(
                endpoint_id="fn", enabled=True, limits=LIMITS, max_concurrency=2, max_queued=10,
                max_queued_bytes=1 << 20, max_wait_s=30.0, reclaim_s=300.0, usd_per_request=0.5,
                usd_per_billed_s=0.0, service_time_s=0.01, cold_start_s=0.5,
            ),
            self.callers, self.clock,
        )  # fmt: skip
        self.hedging = Hedging(HedgeParams(95, share))
        for _ in range(20):
            self.hedging.observe(Backend.POOL, 300, SLOW_S)
        self.hedging.budget.tokens = 5.0
        self.model = ModelRuntime(
            settings=load_config(SETTINGS).settings.models[0],
            policy=ModelPolicy(rules, Slo(60.0, 99, cold_allowed=True)),
            signals=ModelSignals(),
            budget=RetryBudget(),
            sizing=SizingState(),
            serverless=self.function if function else None,
            pool=self.pool,
            hedging=self.hedging,
        )
        self.director = Director(self.metrics, self.clock, Random(1), self.clock.sleep)
        self.record = Record()

    async def serve(self, request=None) -> BackendResponse:
        async with (
            asyncio.timeout(5),
            self.director.serve(
                [Link(self.model, request or make_request())], b"{}", self.record
            ) as response,
        ):
            return response

    def hedges(self) -> dict[str, float]:
        text = self.metrics.expose("")[0].decode()
        lines = [line for line in text.splitlines() if line.startswith("router_hedges_total{")]
        return {line.split('result="')[1].split('"')[0]: float(line.split()[-1]) for line in lines}

    def replicas_are_ready(self, is_ready) -> None:
        for name in ("e1", "e2"):
            self.pool.mark_ready(name, is_ready=is_ready)

    def occupy(self, endpoint_id) -> None:
        self.pool.endpoints[endpoint_id].in_flight = 1

    @property
    def chosen(self) -> Any:
        assert self.record.decision is not None
        return self.record.decision.backend, self.record.decision.reason, self.record.attempts


@pytest.fixture
def race():
    """A race in which `e1`, which is asked first, hangs."""
    return Race()


async def test_another_replica_answers_first(race):
    response = await race.serve()
    assert response.body == b"e2"
    assert race.chosen == (Backend.POOL, Reason.HEDGE, 2)
    assert race.record.endpoint_id == "e2"
    assert (race.callers.cancelled, race.pool.in_flight) == (["e1"], 0)
    assert race.hedges() == {"won": 1.0}
    assert at_once(race.metrics.decisions())["m"][Backend.POOL, Reason.HEDGE] == 1


async def test_an_attempt_that_is_quick_enough_runs_alone(race):
    race.callers.hangs = set()
    await race.serve()
    assert len(race.callers.calls) == 1
    assert race.hedges() == {}


async def test_the_function_helps_where_all_replicas_are_busy(race):
    race.occupy("e2")
    response = await race.serve()
    assert response.body == b"fn"
    assert race.chosen == (Backend.SERVERLESS, Reason.HEDGE, 2)
    assert race.record.cost_usd == pytest.approx(0.5)


async def test_a_function_that_loses_is_cancelled_and_its_cost_counted(race):
    race.occupy("e2")
    race.callers.hangs = {"e1", "fn"}
    serving = asyncio.create_task(race.serve())
    await until(lambda: "fn" in race.callers.calls)
    race.callers.released.set()  # wakes both; the first attempt is asked first
    response = await serving
    assert response.body == b"e1"
    assert race.record.decision.reason is not Reason.HEDGE
    assert race.record.cost_usd == pytest.approx(0.5)
    assert (race.function.in_flight, race.hedges()) == (0, {"lost": 1.0})


async def test_the_function_that_is_overtaken_while_it_works_still_costs(race):
    race.callers.hangs = {"fn"}
    for _ in range(20):
        race.hedging.observe(Backend.SERVERLESS, 300, SLOW_S)
    race.replicas_are_ready(False)
    serving = asyncio.create_task(race.serve())
    await until(lambda: "fn" in race.callers.calls)
    race.replicas_are_ready(True)
    await serving
    assert race.callers.cancelled == ["fn"]
    assert race.chosen == (Backend.POOL, Reason.HEDGE, 2)
    assert race.record.cost_usd == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("facts", "asked"),
    [
        ({"is_idempotent": False}, 1),
        ({"sequence_id": "s"}, 1),
        ({"is_inference": False}, 1),
        ({}, 2),
    ],
    ids=["must not run twice", "belongs to a sequence", "is no inference", "may be hedged"],
)
async def test_what_may_run_twice_is_hedged(race, facts, asked):
    race.callers.hangs = {"e1", "e2"}
    serving = asyncio.create_task(race.serve(make_request(**facts)))
    await asyncio.sleep(5 * SLOW_S)  # five times what a hedge waits for
    race.callers.released.set()
    await serving
    assert len(race.callers.calls) == asked


async def test_a_hedge_is_paid_for():
    race = Race(share=0.0)
    await race.serve()
    assert race.hedges() == {"won": 1.0}
    assert race.hedging.budget.tokens == pytest.approx(4.0)


async def test_the_same_replica_is_not_asked_twice_though_it_has_room(race):
    race.pool.endpoints["e1"].resize(2)
    race.pool.mark_ready("e2", is_ready=False)
    response = await race.serve()
    assert (response.body, race.callers.calls) == (b"fn", ["e1", "fn"])


async def test_no_budget_no_hedge(race):
    race.hedging.reconfigure(HedgeParams(95, 0.0))
    race.hedging.budget.tokens = 0.0
    serving = asyncio.create_task(race.serve())
    await until(race.hedges)
    race.callers.released.set()
    await serving
    assert (race.callers.calls, race.hedges()) == (["e1"], {"no_budget": 1.0})


@pytest.mark.parametrize("rules", [POOL_RULE, ()], ids=["a rule names the pool", "no function"])
async def test_no_place_no_hedge_and_nothing_spent(rules):
    race = Race(function=bool(rules), rules=rules)
    race.occupy("e2")
    before = race.hedging.budget.tokens
    serving = asyncio.create_task(race.serve())
    await until(race.hedges)
    race.callers.released.set()
    await serving
    assert (race.callers.calls, race.hedges()) == (["e1"], {"no_place": 1.0})
    assert race.hedging.budget.tokens == pytest.approx(before + 0.5)


async def test_a_hedge_that_fails_leaves_the_first_attempt_alone(race):
    race.callers.fails = {"e2"}
    serving = asyncio.create_task(race.serve())
    await until(lambda: "e2" in race.callers.calls)
    await asyncio.sleep(0)
    race.callers.released.set()
    response = await serving
    assert (response.body, race.record.endpoint_id) == (b"e1", "e1")
    assert race.hedges() == {"lost": 1.0}


async def test_both_fail_so_the_next_attempt_goes_elsewhere(race):
    race.callers.fails = {"e1", "e2"}
    serving = asyncio.create_task(race.serve())
    await until(lambda: "e2" in race.callers.calls)
    race.callers.released.set()
    response = await serving
    assert response.body == b"fn"
    assert race.chosen == (Backend.SERVERLESS, Reason.FALLBACK, 3)
    assert race.hedges() == {"failed": 1.0}


async def test_a_client_that_leaves_ends_both(race):
    race.callers.hangs = {"e1", "e2"}
    serving = asyncio.create_task(race.serve())
    await until(lambda: len(race.callers.calls) == 2)
    serving.cancel()
    await asyncio.wait({serving})
    assert sorted(race.callers.cancelled) == ["e1", "e2"]
    assert (race.pool.in_flight, race.hedges()) == (0, {"cancelled": 1.0})


async def test_a_loser_counts_with_the_time_it_had(race):
    """Or the slow ones would be missing, and the percentile sink with every hedge."""
    await race.serve()
    times = race.hedging._times[Backend.POOL, 9]
    assert len(times._sorted) == 22
