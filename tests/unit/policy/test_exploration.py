"""Trials of a place whose estimate keeps requests away: soon at first, seldom later."""

import pytest

from router.policy.estimates import ServiceTimes, believed_s
from router.policy.exploration import Exploration

SIZE = 1000


def trials(exploration: Exploration, requests: int, *, answered: bool = True) -> list[int]:
    """The numbers of the requests that were trials; each is answered, or none ever is."""
    begun: list[int] = []
    for number in range(requests):
        answers = len(begun) if answered else 0
        if exploration.is_due(SIZE, answers, number, now=0.001 * number):
            exploration.begun(SIZE, answers, number, now=0.001 * number)
            begun.append(number)
    return begun


def test_the_first_trials_are_the_square_numbers_and_the_later_ones_one_in_two_thousand():
    found = trials(Exploration(), 7000)
    assert found[:10] == [n * n for n in range(10)]
    assert found[10:] == [2081, 4081, 6081]


def test_a_trial_under_way_is_waited_for_until_it_counts_as_lost():
    exploration = Exploration()
    exploration.begun(SIZE, 0, 0, now=0.0)
    assert not exploration.is_due(SIZE, 0, 100, now=9.0)
    assert exploration.is_due(SIZE, 0, 100, now=10.0)
    assert exploration.is_due(SIZE, 1, 100, now=0.1)


def test_every_size_has_its_own_trials():
    exploration = Exploration()
    exploration.begun(SIZE, 0, 0, now=0.0)
    assert exploration.is_due(1 << 20, 0, 0, now=0.0)


def test_a_renewed_place_gets_three_more_trials_soon():
    exploration = Exploration()
    trials(exploration, 1000)
    exploration.renewed()
    assert len(trials(exploration, 2000)) == 3


def test_an_unanswered_trial_does_not_open_the_door_for_all():
    assert len(trials(Exploration(), 10_000, answered=False)) == 1


class TestBelievedTimes:
    def test_an_observation_is_believed_before_any_prior(self):
        pool, function = ServiceTimes(5.0), ServiceTimes(5.0)
        pool.observe(SIZE, 0.1)
        function.observe(SIZE, 0.3)
        assert believed_s(pool, function, SIZE) == pytest.approx(0.1)

    def test_right_priors_are_believed(self):
        pool, function = ServiceTimes(0.1), ServiceTimes(0.4)
        assert believed_s(pool, function, SIZE) == pytest.approx(0.1)
        function.observe(SIZE, 0.4)
        assert believed_s(pool, function, SIZE) == pytest.approx(0.1)

    def test_one_wrong_prior_of_two_is_put_right_by_the_function(self):
        for wrong in (0.05, 20.0):
            both, own, other = ServiceTimes(0.1 * wrong), ServiceTimes(2.0), ServiceTimes(0.1)
            for pool, prior_s in ((both, 0.1 * wrong), (own, 0.1), (other, 0.1 * wrong)):
                function = ServiceTimes(prior_s)
                function.observe(SIZE, 0.1)
                assert believed_s(pool, function, SIZE) == pytest.approx(0.1)
