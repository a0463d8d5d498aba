"""Replicas in the world: when they work, who gets a request, until when they are paid for."""

from math import inf

from router.replay.replicas import Replicas
from tests.fakes.replays import make_setup


def make_replicas(capacity: int = 2, **world: float) -> Replicas:
    keys = {"startup_s": 20, "min_billing_s": 60, "concurrency": capacity, **world}
    written = "{" + ", ".join(f"{name}: {value}" for name, value in keys.items()) + "}"
    return Replicas(make_setup(written).world, capacity, seed=1)


def start(replicas: Replicas, count: int, now: float = 0.0) -> None:
    for ready_at, slot in replicas.want(count, now):
        assert replicas.became_ready(slot, now, ready_at)


def test_a_replica_takes_requests_once_it_is_ready() -> None:
    replicas = make_replicas()
    starting = replicas.want(2, 5.0)
    assert [at for at, _ in starting] == [25.0, 25.0]
    assert (replicas.ready, replicas.free) == (0, 0)
    replicas.became_ready(starting[0][1], 5.0, 25.0)
    assert (replicas.ready, replicas.free, replicas.slots) == (1, 2, 2)


def test_the_least_loaded_replica_gets_the_request() -> None:
    replicas = make_replicas()
    start(replicas, 3)
    taken = [replicas.take(30.0, 1.0)[0] for _ in range(6)]
    assert taken == [0, 1, 2, 0, 1, 2]
    assert replicas.free == 0


def test_sampling_many_replicas_never_overfills_one() -> None:
    replicas = make_replicas()
    start(replicas, 12)
    taken = [replicas.take(30.0, 1.0)[0] for _ in range(24)]
    assert sorted(taken) == sorted([*range(12)] * 2)


def test_the_youngest_goes_first_and_finishes_what_it_has() -> None:
    replicas = make_replicas(min_billing_s=0)
    start(replicas, 2)
    slots = [replicas.take(30.0, 100.0)[0] for _ in range(2)]
    assert slots == [0, 1]
    replicas.want(1, 40.0)
    assert (replicas.ready, replicas.free) == (1, 1)
    assert replicas.take(41.0, 1.0)[0] == 0
    replicas.release(1, 130.0)
    assert [life.gone for life in replicas.lives] == [inf, 130.0]
    assert replicas.lives[1].unready == 40.0


def test_a_replica_that_is_stopped_while_it_starts_never_serves() -> None:
    replicas = make_replicas()
    [(ready_at, slot)] = replicas.want(1, 0.0)
    replicas.want(0, 10.0)
    assert not replicas.became_ready(slot, 0.0, ready_at)
    # Its place is taken by another, which is not ready because the first one's time has come.
    replicas.want(1, 15.0)
    assert not replicas.became_ready(slot, 0.0, ready_at)
    assert replicas.ready == 0


def test_the_minimum_is_paid_for_and_no_more_than_was_used() -> None:
    replicas = make_replicas()
    start(replicas, 1)
    replicas.want(0, 30.0)
    start(replicas, 1, 100.0)
    replicas.want(0, 500.0)
    assert replicas.paid()[:, [0, 3]].tolist() == [[0.0, 60.0], [100.0, 500.0]]


def test_more_than_a_replica_works_on_waits_inside_it() -> None:
    replicas = make_replicas(capacity=3, concurrency=1)
    start(replicas, 1)
    assert [replicas.take(30.0, 1.0)[1] for _ in range(3)] == [31.0, 32.0, 33.0]


def test_start_up_times_are_drawn_in_the_order_of_launches() -> None:
    def ready_at(counts: list[int]) -> list[float]:
        setup = make_setup("{startup_s: {exponential: 20}}")
        replicas = Replicas(setup.world, 1, seed=7)
        return [at for count in counts for at, _ in replicas.want(count, 0.0)]

    assert ready_at([1, 3]) == ready_at([3])
    assert len(set(ready_at([3]))) == 3
