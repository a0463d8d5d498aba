"""Properties of the pure policy: it repeats itself, prunes rules safely, and does not flap."""

from itertools import pairwise
from math import isfinite

from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.decision import Backend, Decision
from router.domain.errors import RouterError
from router.domain.snapshot import ServerlessLimits
from router.policy.decide import ModelPolicy, State, decide
from router.policy.rules import Glob, Match, Route, Rule, RuleIndex, first_match, rules_for
from router.policy.sizing import Demand, Filling, Level, SizingParams, size
from tests.fakes.builders import NOW, SLO, make_pool, make_request, make_serverless

counts = st.integers(0, 30)
durations = st.floats(0.0, 60.0)
names = st.sampled_from(["m", "n", "bert-a", "bert-b"])

requests = st.builds(
    make_request,
    request_id=st.text("ab12", min_size=1, max_size=4),
    model=names,
    version=st.sampled_from([None, "1", "2"]),
    tenant=st.sampled_from([None, "a", "b"]),
    payload_bytes=st.sampled_from([0, 300, 5_000_000, 10_000_000]),
    is_text=st.booleans(),
    stream=st.booleans(),
    hint=st.sampled_from([None, *Backend]),
    deadline=st.one_of(st.none(), st.floats(NOW - 1, NOW + 5)),
    headers=st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from(["1", "bulk"])),
)
serverless = st.one_of(
    st.none(),
    st.builds(
        make_serverless,
        enabled=st.booleans(),
        breaker_open=st.booleans(),
        in_flight=counts,
        max_concurrency=st.integers(1, 20),
        queued=counts,
        max_queued=counts,
        limits=st.builds(ServerlessLimits, st.just(6_291_556), st.floats(0.1, 30.0), st.booleans()),
        expected_s=durations,
        upper_s=durations,
        p_cold=st.floats(0, 1),
        init_s=durations,
    ),
)
pools = st.one_of(
    st.none(),
    st.builds(
        make_pool,
        enabled=st.booleans(),
        can_start=st.booleans(),
        ready=st.integers(0, 3),
        wanted=st.integers(0, 3),
        free_slots=st.integers(0, 4),
        queued=counts,
        max_queued=counts,
        expected_s=durations,
        upper_s=durations,
        ready_in_s=durations,
        signals_stale=st.booleans(),
    ),
)
matches = st.builds(
    Match,
    models=st.lists(st.sampled_from([Glob("m"), Glob("bert-*"), Glob("*"), Glob("zz")])).map(tuple),
    versions=st.frozensets(st.sampled_from(["1", "2"]), max_size=1),
    tenants=st.frozensets(st.sampled_from(["a", "b"]), max_size=1),
    headers=st.sampled_from([(), (("x-a", Glob("b*")),)]),
    min_bytes=st.sampled_from([0, 1000]),
)
routes = st.one_of(
    st.builds(Route, backend=st.sampled_from([None, *Backend])),
    st.builds(Route, serverless_share=st.floats(0, 1)),
)
rules = st.lists(st.builds(Rule, st.text("abc", min_size=1), matches, routes), max_size=5).map(
    tuple
)


def decided(request, policy, state) -> Decision | tuple[type, str]:
    try:
        return decide(request, policy, state, NOW)
    except RouterError as error:
        return type(error), str(error)


@settings(max_examples=200, deadline=None)
@given(requests, rules, serverless, pools)
def test_the_same_input_gives_the_same_decision_with_and_without_a_trace(
    request, rules, function, pool
):
    policy, state = ModelPolicy(rules, SLO), State(function, pool, {})
    first = decided(request, policy, state)
    assert decided(request, policy, state) == first
    if isinstance(first, Decision):
        traced = decide(request, policy, state, NOW, [])
        assert (traced.backend, traced.reason, traced.rule) == (
            first.backend,
            first.reason,
            first.rule,
        )


@settings(max_examples=200, deadline=None)
@given(requests, rules, serverless, pools)
def test_a_decision_names_a_backend_that_exists_and_is_enabled(request, rules, function, pool):
    decision = decided(request, ModelPolicy(rules, SLO), State(function, pool, {}))
    if isinstance(decision, Decision):
        chosen = function if decision.backend is Backend.SERVERLESS else pool
        assert chosen is not None
        assert chosen.enabled


@settings(max_examples=200, deadline=None)
@given(requests, rules)
def test_the_rules_of_a_model_decide_as_all_rules_do(request, rules):
    assert first_match(rules_for(rules, request.model), request) is first_match(rules, request)
    assert RuleIndex(rules).first_match(request) is first_match(rules, request)


loads = st.floats(0.0, 8.0)
params = st.builds(
    SizingParams,
    min_replicas=st.integers(0, 2),
    max_replicas=st.integers(2, 5),
    packing=st.floats(0.1, 1.0),
    replica_usd_per_s=st.floats(0.0, 2.0),
    startup_s=st.floats(0.0, 60.0),
    min_billing_s=st.floats(0.0, 60.0),
)
demands = st.builds(
    Demand,
    load=loads,
    serverless_usd_per_s=st.floats(0.0, 20.0),
    captive_load=st.floats(0.0, 4.0),
    held=st.integers(0, 2),
    latency_duty=st.booleans(),
    filling=st.builds(
        Filling, usd_per_s=st.floats(0.0, 5.0), width=st.floats(0.0, 9.0), slots=st.integers(1, 64)
    ),
    forced=st.integers(0, 4),
)


@settings(max_examples=200, deadline=None)
@given(params, st.lists(st.tuples(demands, st.floats(0.0, 30.0)), max_size=30))
def test_wanted_is_within_its_bounds_and_counters_are_numbers_within_theirs(params, steps):
    levels: tuple[Level, ...] = ()
    now = NOW
    for demand, dt in steps:
        now += dt
        sizing = size(params, levels, demand, dt, now)
        assert params.min_replicas <= sizing.wanted <= params.max_replicas
        for level in sizing.levels:
            assert isfinite(level.counter_usd)
            assert 0.0 <= level.counter_usd <= params.beta_usd(0.0)
        levels = sizing.levels


@settings(max_examples=150, deadline=None)
@given(params, loads, st.floats(0.5, 20.0))
def test_a_constant_load_settles_and_never_flaps(params, load, usd_per_unit):
    demand = Demand(load, usd_per_unit * load)
    levels: tuple[Level, ...] = ()
    wanted = []
    for step in range(200):
        sizing = size(params, levels, demand, 1.0, NOW + step)
        levels = sizing.levels
        wanted.append(sizing.wanted)
    assert all(after >= before for before, after in pairwise(wanted)), "started, never stopped"
