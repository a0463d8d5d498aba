import pytest

from workers.function_host.pool import EnvironmentPool, Reuse, Start, State


def _serve_at_once(pool: EnvironmentPool, count: int) -> list[int]:
    """Start `count` environments that all run an invocation; return them, oldest first."""
    started = []
    for _ in range(count):
        assert pool.try_reserve()
        choice = pool.choose()
        assert isinstance(choice, Start)
        pool.started(choice.environment)
        started.append(choice.environment)
    return started


def _finish(pool: EnvironmentPool, environment: int) -> None:
    pool.answered(environment)
    pool.release()
    pool.polled(environment)


def test_prefers_the_environment_used_most_recently() -> None:
    pool = EnvironmentPool(3)
    first, second, third = _serve_at_once(pool, 3)
    for environment in (second, third, first):
        _finish(pool, environment)
    chosen = []
    for _ in range(3):
        assert pool.try_reserve()
        chosen.append(pool.choose())
    assert chosen == [Reuse(first), Reuse(third), Reuse(second)]


def test_calls_in_a_row_stay_with_one_environment_even_before_it_polls() -> None:
    pool = EnvironmentPool(2)
    first, second = _serve_at_once(pool, 2)
    _finish(pool, first)
    pool.answered(second)
    pool.release()
    for _ in range(3):
        assert pool.try_reserve()
        assert pool.choose() == Reuse(second)
        pool.polled(second)
        pool.answered(second)
        pool.release()
    assert pool.state(first) is State.IDLE


def test_an_environment_chosen_before_its_poll_does_not_become_idle() -> None:
    pool = EnvironmentPool(1)
    (only,) = _serve_at_once(pool, 1)
    pool.answered(only)
    pool.release()
    assert pool.try_reserve()
    assert pool.choose() == Reuse(only)
    pool.polled(only)
    assert pool.state(only) is State.BUSY
    _finish(pool, only)
    assert pool.state(only) is State.IDLE


def test_admits_no_more_than_the_limit() -> None:
    pool = EnvironmentPool(2)
    assert [pool.try_reserve() for _ in range(3)] == [True, True, False]
    pool.release()
    assert pool.try_reserve()


def test_a_removed_environment_is_replaced_under_a_new_number() -> None:
    pool = EnvironmentPool(1)
    (only,) = _serve_at_once(pool, 1)
    pool.remove(only)
    pool.release()
    assert pool.state(only) is None
    assert pool.try_reserve()
    assert pool.choose() == Start(only + 1)


@pytest.mark.parametrize("stage", ["idle", "returning"])
def test_a_removed_environment_is_never_chosen(stage: str) -> None:
    pool = EnvironmentPool(1)
    (only,) = _serve_at_once(pool, 1)
    pool.answered(only)
    pool.release()
    if stage == "idle":
        pool.polled(only)
    pool.remove(only)
    assert pool.try_reserve()
    assert isinstance(pool.choose(), Start)


def test_misuse_is_an_error() -> None:
    pool = EnvironmentPool(1)
    with pytest.raises(RuntimeError, match="released more"):
        pool.release()
    (only,) = _serve_at_once(pool, 1)
    with pytest.raises(RuntimeError, match="without a reservation"):
        pool.choose()
    with pytest.raises(RuntimeError, match="is busy, not starting"):
        pool.started(only)
    pool.answered(only)
    with pytest.raises(RuntimeError, match="is returning, not busy"):
        pool.answered(only)
    with pytest.raises(KeyError):
        pool.remove(99)
