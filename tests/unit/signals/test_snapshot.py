import pytest

from router.signals.snapshot import ALONE, FleetSnapshot


def taken_at(moment: float) -> FleetSnapshot:
    return FleetSnapshot({}, {}, {}, is_leader=False, taken_at=moment)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(10.0, False, id="fresh at once"),
        pytest.param(13.0, False, id="fresh up to the bound"),
        pytest.param(13.01, True, id="stale past the bound"),
        pytest.param(9.0, False, id="fresh when it was taken after now was read"),
    ],
)
def test_stale_compares_the_age_with_the_bound(now: float, expected: bool) -> None:
    assert taken_at(10.0).stale(now, 3.0) is expected


@pytest.mark.parametrize("now", [0.0, 1e12])
def test_alone_leads_and_never_becomes_stale(now: float) -> None:
    assert ALONE.is_leader
    assert not ALONE.stale(now, 0.0)
    assert not ALONE.peers
    assert not ALONE.endpoints
    assert not ALONE.peer_in_flight
