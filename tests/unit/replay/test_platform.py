"""A serverless platform in the world: warm, cold, refused."""

from router.replay.platform import Platform
from tests.fakes.replays import make_setup


def make_platform(**world: int) -> Platform:
    keys = {"reclaim_s": 300, "max_concurrency": 10, "new_environments_per_10_s": 1000, **world}
    written = ", ".join(f"{name}: {value}" for name, value in keys.items())
    function = make_setup(f"{{serverless: {{{written}}}}}").world.function
    assert function is not None
    return Platform(function)


def test_the_first_call_is_cold_and_the_next_warm() -> None:
    platform = make_platform()
    assert platform.call(0.0) is True
    platform.ended(1.0)
    assert platform.call(2.0) is False


def test_calls_at_once_need_an_environment_each() -> None:
    platform = make_platform()
    assert [platform.call(0.0) for _ in range(3)] == [True, True, True]


def test_the_environment_used_last_is_used_again_so_that_others_are_reclaimed() -> None:
    platform = make_platform()
    platform.call(0.0)
    platform.call(0.0)
    platform.ended(1.0)
    platform.ended(2.0)
    for now in (100.0, 200.0, 300.0):
        assert platform.call(now) is False
        platform.ended(now)
    # One has been used all the time; the other has idled since the beginning.
    assert platform.call(310.0) is False
    assert platform.call(310.0) is True


def test_an_environment_is_kept_exactly_as_long_as_stated() -> None:
    kept, gone = make_platform(), make_platform()
    for platform in (kept, gone):
        platform.call(0.0)
        platform.ended(0.0)
    assert kept.call(300.0) is False
    assert gone.call(300.1) is True


def test_calls_beyond_the_concurrency_are_refused_and_counted() -> None:
    platform = make_platform(max_concurrency=2)
    assert [platform.call(0.0) for _ in range(3)] == [True, True, None]
    assert platform.refused == 1
    platform.ended(1.0)
    assert platform.call(1.0) is False


def test_new_environments_come_at_a_limited_rate() -> None:
    platform = make_platform(max_concurrency=1000, new_environments_per_10_s=5)
    assert [platform.call(0.0) for _ in range(6)].count(True) == 5
    assert [platform.call(2.0) for _ in range(3)] == [True, None, None]
    assert [platform.call(100.0) for _ in range(6)].count(True) == 5
