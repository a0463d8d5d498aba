from typing import Any
from zlib import crc32

import pytest

from router.domain.decision import Backend, Cause, Reason, TraceStep
from router.domain.errors import (
    NoEndpointError,
    PayloadTooLargeError,
    QueueFullError,
)
from router.policy.decide import ModelPolicy, State, captive, decide
from router.policy.rules import Match, Route, Rule
from tests.fakes.builders import (
    LIMITS,
    NOW,
    SLO,
    make_pool,
    make_request,
    make_serverless,
)

AUTO = ModelPolicy((), SLO)
ZERO = make_pool(ready=0, wanted=0, slots=0, free_slots=0, ready_in_s=2.0)
STARTING = ZERO._replace(wanted=1)
GONE = ZERO._replace(can_start=False)
CROWDED = make_pool(free_slots=0, queued=90)
FULL = make_pool(free_slots=0, queued=100)
IDLE = make_pool()
WARM = make_serverless()
BUSY = make_serverless(in_flight=20)
STUFFED = make_serverless(in_flight=20, queued=100)
OPEN = make_serverless(breaker_open=True, open_for_s=2.0)
SOON = OPEN._replace(max_wait_s=30.0)
BRIEF = SOON._replace(open_for_s=0.2)
SLOW = make_serverless(expected_s=31.0)
HUGE = {"payload_bytes": LIMITS.max_payload_bytes + 1}

CASES: dict[str, tuple[Any, ...]] = {
    # Per row: request, both backends, what failed before; then backend, reason, whether held.
    "a free slot": ({}, (WARM, IDLE), {}, ("pool", "warm_capacity", False)),
    "no replica: cheaper to pay per call": (
        {}, (WARM, ZERO), {}, ("serverless", "below_break_even", False)),
    "no replica and stale signals": (
        {}, (WARM, ZERO._replace(signals_stale=True)), {},
        ("serverless", "stale_signals", False)),
    "no endpoint and stale signals": (
        {}, (WARM, GONE._replace(signals_stale=True)), {},
        ("serverless", "stale_signals", False)),
    "the function bridges a start": (
        {}, (WARM, STARTING), {}, ("serverless", "pool_starting", False)),
    "no healthy endpoint": ({}, (WARM, GONE), {}, ("serverless", "no_endpoint", False)),
    "a crowded pool spills": ({}, (WARM, CROWDED), {}, ("serverless", "spillover", False)),
    "a full pool spills": ({}, (WARM, FULL), {}, ("serverless", "spillover", False)),
    "too slow a replica": (
        {}, (WARM, IDLE._replace(upper_s=9.0)), {}, ("serverless", "deadline", False)),
    "an idle but slow pool of which too little is known": (
        {}, (WARM, IDLE._replace(upper_s=9.0, may_try=True)), {}, ("pool", "explore", False)),
    "a full pool, a slow function of which too little is known": (
        {}, (WARM._replace(upper_s=9.0, may_try=True), CROWDED), {},
        ("serverless", "explore", False)),
    "a replica that only a function's prior keeps": (
        {}, (WARM._replace(expected_s=9.0, upper_s=9.0, is_untried=True, may_try=True), IDLE), {},
        ("serverless", "explore", False)),
    "too large for the function": (HUGE, (WARM, IDLE), {}, ("pool", "limit_payload", False)),
    "too large, held while the pool is at zero": (
        HUGE, (WARM, ZERO), {}, ("pool", "limit_payload", True)),
    "an open circuit, held until it closes": (
        {}, (BRIEF, None), {}, ("serverless", "breaker_open", True)),
    "an open circuit that closes before the deadline": (
        {"deadline": NOW + 2.5}, (SOON, None), {}, ("serverless", "breaker_open", True)),
    "an open circuit beside a full pool": (
        {}, (BRIEF, FULL), {}, ("serverless", "breaker_open", True)),
    "an open circuit beside a pool that may return": (
        {}, (SOON, GONE), {}, ("pool", "breaker_open", True)),
    "too long for the function": ({}, (SLOW, IDLE), {}, ("pool", "limit_timeout", False)),
    "a stream": ({"stream": True}, (WARM, IDLE), {}, ("pool", "limit_stream", False)),
    "an open circuit": ({}, (OPEN, IDLE), {}, ("pool", "breaker_open", False)),
    "an open circuit, held for the pool": (
        {}, (OPEN, ZERO), {}, ("pool", "breaker_open", True)),
    "the function is at its limit, the pool has room": (
        {}, (BUSY, IDLE), {}, ("pool", "warm_capacity", False)),
    "the function is at its limit, the pool is crowded but in time": (
        {}, (BUSY, make_pool(free_slots=0)), {}, ("pool", "warm_capacity", True)),
    "both are crowded, the function's queue is in time": (
        {}, (BUSY, CROWDED), {}, ("serverless", "spillover", True)),
    "both are crowded and late: what finishes first": (
        {}, (BUSY._replace(queued=99, expected_s=1.0, upper_s=1.0), CROWDED), {},
        ("pool", "deadline", True)),
    "both have queues: the shorter wait": (
        {}, (BUSY, ZERO), {}, ("serverless", "below_break_even", True)),
    "both have queues: the pool is sooner": (
        {}, (make_serverless(in_flight=20, expected_s=5.0), STARTING), {},
        ("pool", "spillover", True)),
    "the function's queue is full, the pool starts": (
        {}, (STUFFED, STARTING), {}, ("pool", "spillover", True)),
    "only a function": ({}, (WARM, None), {}, ("serverless", "only_backend", False)),
    "only a function, at its limit": (
        {}, (BUSY, None), {}, ("serverless", "only_backend", True)),
    "the pool is disabled": (
        {}, (WARM, make_pool(enabled=False)), {}, ("serverless", "only_backend", False)),
    "only a pool": ({}, (None, IDLE), {}, ("pool", "only_backend", False)),
    "only a pool, at zero": ({}, (None, ZERO), {}, ("pool", "pool_starting", True)),
    "only a pool, nothing healthy: wait for one to return": (
        {}, (None, GONE), {}, ("pool", "no_endpoint", True)),
    "the pool failed before": (
        {}, (WARM, IDLE), {Backend.POOL: Reason.FALLBACK}, ("serverless", "fallback", False)),
    "the function refused before": (
        {}, (WARM, IDLE), {Backend.SERVERLESS: Reason.SPILLOVER}, ("pool", "spillover", False)),
    "the event turned out too large": (
        {}, (WARM, ZERO), {Backend.SERVERLESS: Reason.LIMIT_PAYLOAD},
        ("pool", "limit_payload", True)),
    "a hint": ({"hint": Backend.SERVERLESS}, (WARM, IDLE), {}, ("serverless", "hint", False)),
    "a hint waits for a start": ({"hint": Backend.POOL}, (WARM, ZERO), {}, ("pool", "hint", True)),
    "a hint that cannot be followed": (
        {"hint": Backend.SERVERLESS, **HUGE}, (WARM, IDLE), {}, ("pool", "limit_payload", False)),
    "a hint that failed before": (
        {"hint": Backend.POOL}, (WARM, IDLE), {Backend.POOL: Reason.FALLBACK},
        ("serverless", "fallback", False)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decision(case):
    facts, backends, failed, expected = case
    decision = decide(make_request(**facts), AUTO, State(backends[0], backends[1], failed), NOW)
    assert (decision.backend, decision.reason, decision.hold) == expected


def test_the_tables_cover_every_reason_that_a_decision_can_have():
    told = {expected[1] for *_, expected in CASES.values()} | {"rule"}
    # `hedge` needs an attempt under way and `sticky` an endpoint: neither is decided here.
    assert told == set(Reason) - {Reason.HEDGE, Reason.STICKY}


REFUSALS: dict[str, tuple[Any, ...]] = {
    "too large and no pool": (
        HUGE, (WARM, None), PayloadTooLargeError, str(LIMITS.max_payload_bytes)),
    "too large and the pool is disabled": (
        HUGE, (WARM, make_pool(enabled=False)), PayloadTooLargeError, "function"),
    "both queues are full": ({}, (STUFFED, FULL), QueueFullError, "200 requests wait"),
    "too large and the pool's queue is full": (HUGE, (WARM, FULL), QueueFullError, "busy"),
    "an open circuit and no pool": ({}, (OPEN, None), NoEndpointError, "breaker_open"),
    "an open circuit that outlasts the objective": (
        {}, (SOON, None), NoEndpointError, "breaker_open"),
    "an open circuit that outlasts the deadline": (
        {"deadline": NOW + 1.5}, (SOON, None), NoEndpointError, "breaker_open"),
    "an open circuit that outlasts the wait": (
        {}, (SOON._replace(max_wait_s=1.0), None), NoEndpointError, "breaker_open"),
    "an open circuit and a full queue": (
        {}, (SOON._replace(queued=100), None), NoEndpointError, "breaker_open"),
    "both disabled": (
        {}, (make_serverless(enabled=False), make_pool(enabled=False)), NoEndpointError,
        "disabled"),
    "a stream and no pool": ({"stream": True}, (WARM, None), NoEndpointError, "stream"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_refusal_names_what_is_missing(case):
    facts, backends, error, told = case
    with pytest.raises(error, match=told) as caught:
        decide(make_request(**facts), AUTO, State(backends[0], backends[1], {}), NOW)
    assert type(caught.value) is error


def test_an_event_that_proved_too_large_is_refused_as_too_large_where_no_pool_is():
    failed = {Backend.SERVERLESS: Reason.LIMIT_PAYLOAD}
    with pytest.raises(PayloadTooLargeError, match=str(LIMITS.max_payload_bytes)):
        decide(make_request(), AUTO, State(WARM, None, failed), NOW)


@pytest.mark.parametrize(
    ("route", "state", "expected"),
    [
        (Route(Backend.SERVERLESS), (WARM, IDLE), ("serverless", "rule", False)),
        (Route(Backend.POOL), (WARM, ZERO), ("pool", "rule", True)),
        (Route(Backend.POOL), (WARM, GONE), ("serverless", "no_endpoint", False)),
        (Route(Backend.POOL), (WARM, FULL), ("serverless", "spillover", False)),
        (Route(Backend.SERVERLESS), (OPEN, IDLE), ("pool", "breaker_open", False)),
    ],
    ids=[
        "the rule's backend",
        "the rule's backend, held for a start",
        "the rule's backend has nothing healthy",
        "the rule's backend is full",
        "the rule's backend has an open circuit",
    ],
)
def test_a_rule_decides_unless_its_backend_cannot(route, state, expected):
    policy = ModelPolicy((Rule("mine", Match(), route),), SLO)
    decision = decide(make_request(), policy, State(state[0], state[1], {}), NOW)
    assert (decision.backend, decision.reason, decision.hold) == expected
    assert decision.rule == "mine"


def test_a_hint_goes_before_a_rule():
    policy = ModelPolicy((Rule("mine", Match(), Route(Backend.POOL)),), SLO)
    request = make_request(hint=Backend.SERVERLESS)
    assert decide(request, policy, State(WARM, IDLE, {}), NOW).reason is Reason.HINT


def test_weights_are_drawn_by_request_id_and_come_near_their_share():
    policy = ModelPolicy((Rule("canary", Match(), Route(serverless_share=0.25)),), SLO)
    state = State(WARM, IDLE, {})
    requests = [make_request(request_id=f"id-{number}") for number in range(2000)]
    chosen = [decide(request, policy, state, NOW).backend for request in requests]
    assert 0.2 < chosen.count(Backend.SERVERLESS) / len(chosen) < 0.3
    for request, backend in zip(requests[:20], chosen, strict=False):
        drawn = crc32(request.request_id.encode()) / 2**32 < 0.25
        assert (backend is Backend.SERVERLESS) == drawn


def test_price_and_finish_are_those_of_the_chosen_backend():
    on_function = decide(make_request(), AUTO, State(WARM, ZERO, {}), NOW)
    assert (on_function.price_usd, on_function.finish_s) == pytest.approx((3e-6, 0.05))
    on_pool = decide(make_request(), AUTO, State(WARM, IDLE, {}), NOW)
    assert (on_pool.price_usd, on_pool.finish_s) == pytest.approx((0.0, 0.02))


def test_the_trace_tells_how_long_a_wait_may_take():
    trace: list[TraceStep] = []
    state = State(WARM, make_pool(free_slots=0), {})
    decision = decide(make_request(), AUTO, state, NOW, trace)
    assert decision.hold
    assert decision.patience_s == pytest.approx(0.1375)
    told = f"after {decision.patience_s * 1e3:.0f} ms without a slot"
    assert trace[-1] == TraceStep("choice", "serverless", told)


FULL_FUNCTION = make_serverless(in_flight=10, max_concurrency=10)


@pytest.mark.parametrize(
    ("state", "facts", "expected"),
    [
        (State(FULL_FUNCTION, make_pool(ready=0, free_slots=0), {}), {}, True),
        (State(FULL_FUNCTION, None, {}), {}, False),
        (State(FULL_FUNCTION, IDLE, {Backend.POOL: Reason.FALLBACK}), {}, True),
        (
            State(FULL_FUNCTION, make_pool(ready=0, free_slots=0), {}),
            {"hint": Backend.SERVERLESS},
            False,
        ),
    ],
    ids=["nothing is free", "there is no pool", "the pool failed it once", "it was asked for"],
)
def test_who_has_to_wait_takes_the_first_slot_of_either_side(state, facts, expected):
    trace: list[TraceStep] = []
    decision = decide(make_request(**facts), AUTO, state, NOW, trace)
    assert (decision.hold, decision.anywhere) == (True, expected)
    told = TraceStep("choice", decision.backend.other, "if it has a slot sooner")
    assert (told in decision.trace) is expected


def test_the_trace_tells_every_step_in_order():
    trace: list[TraceStep] = []
    policy = ModelPolicy((Rule("large", Match(min_bytes=10**9), Route(Backend.POOL)),), SLO)
    decision = decide(make_request(**HUGE), policy, State(WARM, IDLE, {}), NOW, trace)
    assert [(step.stage, step.subject) for step in trace] == [
        ("rule", "large"),
        ("rule", "implicit-default"),
        ("deadline", "objective"),
        ("feasible", "serverless"),
        ("predict", "serverless"),
        ("feasible", "pool"),
        ("predict", "pool"),
        ("choice", "pool"),
    ]
    assert decision.trace == tuple(trace)
    assert f"limit {LIMITS.max_payload_bytes}" in trace[3].verdict
    assert "4 free slots" in trace[6].verdict
    assert trace[-1].verdict == Reason.LIMIT_PAYLOAD


def test_the_trace_is_told_of_a_refusal_too():
    trace: list[TraceStep] = []
    with pytest.raises(PayloadTooLargeError):
        decide(make_request(**HUGE), AUTO, State(WARM, None, {}), NOW, trace)
    assert TraceStep("feasible", "pool", f"out: {Cause.NOT_CONFIGURED}") in trace


@pytest.mark.parametrize(
    ("facts", "serverless", "expected"),
    [
        ({}, WARM, False),
        ({}, None, True),
        ({}, make_serverless(enabled=False), True),
        (HUGE, WARM, True),
        ({"stream": True}, WARM, True),
        ({}, SLOW, True),
        ({}, BUSY, False),
        ({}, OPEN, False),
    ],
    ids=["small", "no function", "disabled", "large", "stream", "slow", "busy", "broken"],
)
def test_captive_work_is_what_no_function_could_ever_take(facts, serverless, expected):
    assert captive(make_request(**facts), serverless) is expected


def test_an_open_circuit_is_waited_for_no_longer_than_the_objective_allows():
    request = make_request(received_at=NOW - 0.01)
    decision = decide(request, AUTO, State(BRIEF, None, {}), NOW)
    assert decision.patience_s == pytest.approx(0.24)
