"""However requests and hedges come, hedges stay within their share of the requests."""

from hypothesis import given
from hypothesis import strategies as st

from router.admission.hedging import HedgeParams, Hedging

events = st.lists(
    st.tuples(st.sampled_from(["request", "hedge"]), st.floats(0.0, 5.0)), max_size=300
)


@given(events=events, share=st.floats(0.0, 0.5), floor_per_s=st.floats(0.0, 10.0))
def test_hedges_never_exceed_the_budget(events, share, floor_per_s):
    budget = Hedging(HedgeParams(95, share, floor_per_s)).budget
    now = requests = hedges = 0.0
    for event, pause_s in events:
        now += pause_s
        if event == "request":
            requests += 1
            budget.deposit(now)
        else:
            hedges += budget.withdraw()
        assert hedges <= share * requests + floor_per_s * now + 1e-6


@given(quiet=st.integers(0, 10_000), share=st.floats(0.0, 0.5))
def test_a_quiet_time_does_not_save_up_a_storm(quiet, share):
    budget = Hedging(HedgeParams(95, share)).budget
    for _ in range(quiet):
        budget.deposit(0.0)
    assert sum(budget.withdraw() for _ in range(1000)) <= 10
