import pytest

from router.policy.spare import CALM, LEAST_SPREADS, Caution, slots_for_jobs, spare_slots


@pytest.mark.parametrize(
    ("slots", "in_flight", "waiting", "load", "spare"),
    [
        (16, 0, 0, 0.0, 16),
        (16, 4, 0, 0.0, 10),
        (16, 4, 1, 0.0, 0),
        (16, 11, 0, 11.2, 0),
        (16, 0, 0, 11.2, 1),
        (1, 0, 0, 0.001, 0),
        (1, 0, 0, 0.0, 1),
        (4, 4, 0, 0.0, 0),
    ],
    ids=[
        "all of an idle pool",
        "not what is used, nor what its users may want next",
        "none while somebody waits",
        "none at the usual load of a pool that is used well",
        "no more in a lull than would be left at the usual load",
        "not the only slot where anything comes",
        "the only slot where nothing comes",
        "none of a full pool",
    ],
)
def test_jobs_get_what_real_time_leaves(slots, in_flight, waiting, load, spare):
    assert spare_slots(slots, in_flight, waiting, load) == spare


def test_more_spreads_leave_more_to_real_time():
    assert spare_slots(16, 4, 0, 4.0) == 9
    assert spare_slots(16, 4, 0, 4.0, Caution(3.0)) == 6


def test_what_requests_have_used_of_late_is_left_to_them():
    caution = CALM.seen(13, 1000.0).seen(2, 1029.0)
    assert spare_slots(16, 2, 0, 2.0, caution) == 3
    caution = caution.seen(2, 1031.0)
    assert spare_slots(16, 2, 0, 2.0, caution) == 3
    assert spare_slots(16, 2, 0, 2.0, caution.seen(2, 1062.0)) == 12


def test_a_request_that_waited_beside_a_job_makes_jobs_stand_back():
    assert CALM.learned(10, 1).spreads == pytest.approx(LEAST_SPREADS + 0.495)
    assert CALM.learned(10_000, 0) == CALM
    assert CALM.learned(10_000, 10_000).spreads == 6.0


def test_what_is_kept_settles_where_one_request_in_a_thousand_waits():
    caution = Caution(2.0)
    for _ in range(100):
        caution = caution.learned(1000, 1)
    assert caution.spreads == 2.0


def test_slots_that_are_there_for_jobs_are_theirs():
    assert slots_for_jobs(spare=2, slots=16, alone=4) == 12
    assert slots_for_jobs(spare=2, slots=4, alone=4) == 2
