"""The prepared decision for warm replicas says what `decide` says, or nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.decision import Backend
from router.domain.snapshot import ServerlessLimits
from router.policy.decide import ModelPolicy, State, captive, decide
from router.policy.rules import Glob, Match, Route, Rule
from router.policy.steering import Slo
from router.policy.warm import prepare
from tests.fakes.builders import make_pool, make_request, make_serverless

NOW = 100.0
LIMITS = ServerlessLimits(max_payload_bytes=6_000, timeout_s=30.0, can_stream=False)

routes = st.sampled_from(
    [
        Route(),
        Route(backend=Backend.POOL),
        Route(backend=Backend.SERVERLESS),
        Route(serverless_share=0.5),
    ]
)
matches = st.sampled_from(
    [
        Match(),
        Match(models=(Glob("m*"),)),
        Match(models=(Glob("other"),)),
        Match(min_bytes=1_000),
        Match(tenants=frozenset({"a"})),
        Match(headers=(("x-priority", Glob("bulk")),)),
    ]
)
rules = st.lists(st.tuples(matches, routes), max_size=4).map(
    lambda found: tuple(Rule(f"rule-{n}", match, route) for n, (match, route) in enumerate(found))
)
requests = st.builds(
    make_request,
    model=st.just("m"),
    payload_bytes=st.integers(0, 10_000),
    is_text=st.booleans(),
    stream=st.booleans(),
    hint=st.sampled_from([None, Backend.POOL, Backend.SERVERLESS]),
    tenant=st.sampled_from([None, "a"]),
    headers=st.sampled_from([{}, {"x-priority": "bulk"}]),
    received_at=st.just(NOW),
)
functions = st.none() | st.builds(
    make_serverless,
    enabled=st.booleans(),
    breaker_open=st.booleans(),
    in_flight=st.sampled_from([0, 20]),
    limits=st.just(LIMITS),
    expected_s=st.sampled_from([0.01, 0.5, 31.0]),
    upper_s=st.sampled_from([0.02, 0.7, 40.0]),
)
pools = st.builds(
    make_pool,
    free_slots=st.integers(1, 4),
    upper_s=st.floats(0.001, 2.0),
    expected_s=st.just(0.01),
)


@settings(max_examples=1000)
@given(request=requests, rules=rules, function=functions, pool=pools)
def test_a_warm_reason_is_the_decisions(request, rules, function, pool):
    slo = Slo(latency_s=1.0, percentile=99, cold_allowed=True)
    usable = function is not None and function.enabled
    warm = prepare(request, rules, LIMITS if usable else None)
    if warm is None:
        return
    reason = warm.reason(
        slo.latency_s,
        pool.upper_s,
        function.expected_s if usable else 0.0,
        breaker_open=usable and function.breaker_open,
    )
    if reason is None:
        return
    decision = decide(request, ModelPolicy(rules, slo), State(function, pool, {}), NOW)
    assert (decision.backend, decision.reason) == (Backend.POOL, reason)
    assert decision.rule == warm.rule
    assert not decision.hold
    if warm.is_captive:
        assert captive(request, function)
