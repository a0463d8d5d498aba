"""However tenants use a model's replicas, what they pay adds up to the bill."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.warm_bill import NOBODY, WINDOW_S, WarmBill

seconds = st.floats(0.0, 1e4)
steps = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["a", "b", "c", NOBODY]), seconds, max_size=4),
        st.floats(0.0, 100.0),
        st.floats(0.0, 100.0),
        st.floats(0.0, 3 * WINDOW_S),
    ),
    max_size=40,
)


@given(steps=steps)
def test_shares_add_up_to_the_bill(steps):
    bill, now = WarmBill(), 0.0
    for used_s, busy_usd, idle_usd, pause_s in steps:
        now += pause_s
        shares = bill.split(used_s, busy_usd, idle_usd, now)
        assert sum(share.busy_usd for share in shares) == pytest.approx(busy_usd, rel=1e-9)
        assert sum(share.idle_usd for share in shares) == pytest.approx(idle_usd, rel=1e-9)
        assert all(min(share.busy_usd, share.idle_usd) >= 0 for share in shares)
        assert len({share.tenant for share in shares}) == len(shares)


@given(mine_s=st.floats(0.01, 1e4), yours_s=st.floats(0.01, 1e4), idle_usd=st.floats(0.01, 100.0))
def test_idle_time_is_paid_in_proportion_to_use(mine_s, yours_s, idle_usd):
    bill = WarmBill()
    bill.split({"mine": mine_s}, 0.0, 0.0, 0.0)
    bill.split({"yours": yours_s}, 0.0, 0.0, 1.0)
    paid = {share.tenant: share.idle_usd for share in bill.split({}, 0.0, idle_usd, 2.0)}
    assert paid["mine"] / paid["yours"] == pytest.approx(mine_s / yours_s)


@pytest.mark.parametrize(
    ("after_s", "pays"),
    [(0.0, "a"), (WINDOW_S, "a"), (2 * WINDOW_S - 1, "a"), (2 * WINDOW_S, NOBODY)],
)
def test_a_use_counts_for_its_window_and_the_next(after_s, pays):
    bill = WarmBill()
    bill.split({"a": 1.0}, 1.0, 0.0, 0.0)
    now = 0.0
    while now < after_s:
        now = min(now + 60.0, after_s)
        shares = bill.split({}, 0.0, 1.0, now)
        assert math.isclose(sum(share.idle_usd for share in shares), 1.0)
    paying = {share.tenant for share in bill.split({}, 0.0, 1.0, now) if share.idle_usd}
    assert paying == {pays}
