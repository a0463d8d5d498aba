import pytest

from router.jobs.records import Lane, lane_of
from router.policy.schedule import Grant, Room, earliest_end, latest_starts, plan


def lane(tenant: str, waiting: int, due_at: float, batch: str = "") -> Lane:
    return Lane(lane_of("m", tenant, batch, 60.0), waiting, due_at)


def granted(*grants: Grant) -> list[tuple[str, int, bool]]:
    return [(one.lane.split("|")[1], one.count, one.is_forced) for one in grants]


def test_lanes_have_to_start_before_all_that_is_due_until_then_is_late():
    room = Room(0, 0, 1.0, 10)
    starts = latest_starts([lane("b", 100, 200.0), lane("a", 100, 100.0)], room)
    assert list(starts.values()) == [100.0 - 15.0 - 1.0, 200.0 - 30.0 - 1.0]


def test_free_slots_are_shared_by_tenants_and_go_to_the_most_urgent_lane():
    room = Room(5, 0, 0.1, 10)
    lanes = [lane("a", 90, 900.0, "x"), lane("a", 2, 800.0, "y"), lane("b", 90, 1000.0)]
    grants = plan(lanes, room, {}, 0.0)
    assert granted(*grants) == [("a", 2, False), ("b", 2, False), ("a", 1, False)]
    assert granted(*plan(lanes, room, {"a": 4}, 0.0))[0] == ("b", 4, False)


def test_nothing_is_paid_for_before_the_window_forces_it():
    room = Room(0, 8, 0.1, 8)
    assert plan([lane("a", 5, 100.0)], room, {}, 0.0) == []
    assert granted(*plan([lane("a", 5, 100.0)], room, {}, 99.0)) == [("a", 5, True)]


def test_what_is_forced_takes_the_free_slots_first_and_leaves_the_rest():
    room = Room(4, 2, 0.1, 8)
    lanes = [lane("a", 3, 1.0), lane("b", 9, 1000.0)]
    assert granted(*plan(lanes, room, {}, 0.0)) == [("a", 3, True), ("b", 1, False)]


def test_free_slots_beyond_what_waits_are_nobodys():
    assert granted(*plan([lane("a", 1, 50.0)], Room(9, 0, 0.1, 9), {}, 0.0)) == [("a", 1, False)]


def test_the_earliest_end_counts_only_what_is_due_before():
    room = Room(0, 0, 1.0, 10)
    lanes = [lane("a", 100, 50.0), lane("b", 1000, 500.0)]
    assert earliest_end(lanes, 100.0, 10, room, 0.0) == pytest.approx(16.5)
