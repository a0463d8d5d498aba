import pytest

from router.gateway.admin.status import counters
from router.policy.sizing import Level, SizingParams

PARAMS = SizingParams(0, 2, 1.0, 1.0, 10.0, 0.0)


@pytest.mark.parametrize(
    ("levels", "start", "stop"),
    [
        ((), 0.0, None),
        ((Level(4.0),), 0.4, None),
        ((Level(2.5, bought_at=0.0), Level(1.0)), 0.1, 0.75),
        ((Level(10.0, bought_at=0.0), Level(10.0, bought_at=0.0)), None, 0.0),
    ],
    ids=["at rest", "on its way to its start", "one runs", "no more may run"],
)
def test_how_far_the_sizing_is(levels, start, stop):
    assert counters(levels, PARAMS, 100.0) == {"start": start, "stop": stop}


def test_what_is_not_sized_has_no_counters():
    assert counters((), None, 0.0) == {"start": None, "stop": None}
