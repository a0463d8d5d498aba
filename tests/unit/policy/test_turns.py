from collections import Counter

from router.policy.turns import Turns

NOBODY: frozenset[str] = frozenset()


def served(turns: Turns, work_s: dict[str, float], times: int) -> Counter[str]:
    """Who gets so many slots, while all go on waiting."""
    found: Counter[str] = Counter()
    for _ in range(times):
        name = turns.next(NOBODY)
        assert name is not None
        turns.served(name, work_s[name])
        found[name] += 1
    return found


def waiting(*names: str) -> Turns:
    turns = Turns()
    for name in names:
        turns.join(name)
    return turns


class TestTurns:
    def test_models_get_the_same_time_however_long_their_requests_take(self):
        found = served(waiting("quick", "slow"), {"quick": 0.01, "slow": 0.1}, 110)
        assert abs(found["slow"] - 10) <= 1

    def test_who_comes_late_is_served_at_once_and_is_owed_nothing(self):
        turns = waiting("early")
        served(turns, {"early": 1.0}, 50)
        turns.join("late")
        found = served(turns, {"early": 1.0, "late": 1.0}, 10)
        assert turns.next(NOBODY) is not None
        assert abs(found["late"] - found["early"]) <= 1

    def test_leaving_and_coming_back_wins_nothing(self):
        turns = waiting("sly", "patient")
        found: Counter[str] = Counter()
        for _ in range(100):
            name = turns.next(NOBODY)
            assert name is not None
            turns.served(name, 1.0)
            found[name] += 1
            if name == "sly":
                turns.leave("sly")
                turns.join("sly")
        assert abs(found["sly"] - found["patient"]) <= 1

    def test_those_that_no_slot_is_good_for_are_passed_over(self):
        turns = waiting("a", "b")
        assert turns.next({"a"}) == "b"
        assert turns.next({"a", "b"}) is None

    def test_nothing_is_kept_of_models_that_have_all_gone(self):
        turns = waiting("a", "b")
        served(turns, {"a": 1.0, "b": 5.0}, 4)
        turns.leave("a")
        turns.leave("b")
        assert turns.next(NOBODY) is None
        assert (turns._owed, turns.waiting) == ({}, {})
