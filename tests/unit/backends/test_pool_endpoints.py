import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from router.admission.adaptive import AdaptiveParams
from router.admission.outliers import OutlierParams
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.domain.decision import Verdict
from router.domain.errors import QueueFullError, QueueTimeoutError
from router.domain.ports import BackendResponse
from router.upstream.address import parse_address
from tests.fakes.builders import FakeClock, make_request

PARAMS = PoolParams(
    enabled=True, can_start=True, max_queued=2, max_queued_bytes=10_000, service_time_s=0.1,
    startup_s=5.0,
)  # fmt: skip
REQUEST = make_request()


class Answers:
    """A caller that needs `takes_s` and answers with `status`."""

    def __init__(self, clock, status=200, takes_s=0.02) -> None:
        self.clock = clock
        self.status = status
        self.takes_s = takes_s

    async def send(self, address, request, body, timeout_s) -> Any:
        self.clock.advance(self.takes_s)
        return BackendResponse(self.status, [], b"{}")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def caller(clock):
    return Answers(clock)


@pytest.fixture
def make_pool(clock, caller):
    def make(*capacities, params=PARAMS) -> Any:
        pool = Pool("m", params, caller, clock, Random(1))
        for number, capacity in enumerate(capacities):
            pool.add(Endpoint(f"e{number}", parse_address("http://127.0.0.1:1"), capacity))
            pool.mark_ready(f"e{number}", is_ready=True)
        return pool

    return make


async def queued(pool, request=REQUEST, timeout_s=30.0) -> Any:
    """A task that waits in the pool's queue."""
    task = asyncio.create_task(pool.reserve(request, timeout_s))
    await asyncio.sleep(0)
    return task


async def result_of(task) -> Any:
    async with asyncio.timeout(5):
        return await task


def fail(pool, clock, times) -> None:
    for _ in range(times):
        lease = pool.try_reserve(REQUEST, clock())
        assert lease is not None
        lease.release(Verdict.FAILED, clock(), None)


def test_slots_are_taken_up_to_capacity_and_given_back(make_pool, clock):
    pool = make_pool(2, 1)
    leases = [pool.try_reserve(REQUEST, clock()) for _ in range(4)]
    assert leases[3] is None
    assert sorted(lease.endpoint_id for lease in leases[:3]) == ["e0", "e0", "e1"]
    assert (pool.in_flight, pool.snapshot(1, clock()).free_slots) == (3, 0)
    leases[0].release(Verdict.OK, clock(), None)
    assert (pool.in_flight, pool.snapshot(1, clock()).free_slots) == (2, 1)


def test_endpoints_that_failed_this_request_are_avoided(make_pool, clock):
    pool = make_pool(4, 4)
    leases = [pool.try_reserve(REQUEST, clock(), {"e0"}) for _ in range(4)]
    assert {lease.endpoint_id for lease in leases} == {"e1"}
    assert pool.try_reserve(REQUEST, clock(), {"e0"}) is None
    assert pool.others_available({"e0"}, clock())
    assert not pool.others_available({"e0", "e1"}, clock())


def test_slots_held_by_other_gateways_count(make_pool, clock):
    pool = make_pool(2)
    pool.endpoints["e0"].peer_in_flight = 1
    assert pool.snapshot(1, clock()).free_slots == 1
    assert pool.try_reserve(REQUEST, clock()) is not None
    assert pool.try_reserve(REQUEST, clock()) is None


def test_a_sequence_stays_on_its_endpoint(make_pool, clock):
    pool = make_pool(4, 4, 4)
    request = make_request(sequence_id="s1")
    owners = set()
    for _ in range(10):
        lease = pool.try_reserve(request, clock())
        owners.add(lease.endpoint_id)
        lease.release(Verdict.OK, clock(), None)
    assert len(owners) == 1


def test_a_full_owner_does_not_hold_its_sequence_up(make_pool, clock):
    pool = make_pool(1, 1)
    request = make_request(sequence_id="s1")
    first, second = (pool.try_reserve(request, clock()) for _ in range(2))
    assert {first.endpoint_id, second.endpoint_id} == {"e0", "e1"}


class TestQueue:
    async def test_a_released_slot_goes_to_the_first_waiter(self, make_pool, clock):
        pool = make_pool(1)
        lease = pool.try_reserve(REQUEST, clock())
        first, second = await queued(pool), await queued(pool)
        lease.release(Verdict.OK, clock(), None)
        assert pool.in_flight == 1, "the slot is the waiter's before anybody runs"
        assert (await result_of(first)).endpoint_id == "e0"
        assert not second.done()
        (await result_of(first)).release(Verdict.OK, clock(), None)
        (await result_of(second)).release(Verdict.OK, clock(), None)
        assert pool.in_flight == 0

    @pytest.mark.parametrize(
        "reserve",
        [
            lambda pool, now: pool.try_reserve(REQUEST, now),
            lambda pool, now: pool.reserve_warm(now),
            lambda pool, now: pool.reserve_warm_version("1", now),
        ],
        ids=["a slot", "a warm slot", "a warm slot for a version"],
    )
    async def test_nobody_overtakes_those_who_wait(self, make_pool, clock, reserve):
        pool = make_pool(1)
        lease = pool.try_reserve(REQUEST, clock())
        waiter = await queued(pool)
        pool.endpoints["e0"].resize(2)
        assert reserve(pool, clock()) is None
        assert pool.snapshot(1, clock()).free_slots == 0
        lease.release(Verdict.OK, clock(), None)
        await result_of(waiter)

    async def test_the_queue_is_bounded_and_says_so(self, make_pool, clock):
        pool = make_pool(1)
        pool.try_reserve(REQUEST, clock())
        waiters = [await queued(pool), await queued(pool)]
        with pytest.raises(QueueFullError):
            await pool.reserve(REQUEST, 1.0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)
        assert (len(pool.queue), pool.in_flight) == (0, 1)

    async def test_a_waiter_cancelled_after_the_handover_passes_its_slot_on(self, make_pool, clock):
        pool = make_pool(1)
        lease = pool.try_reserve(REQUEST, clock())
        first, second = await queued(pool), await queued(pool)
        lease.release(Verdict.OK, clock(), None)
        first.cancel()
        assert (await result_of(second)).endpoint_id == "e0"
        assert pool.in_flight == 1

    async def test_a_wait_that_is_too_long_ends(self, make_pool, clock):
        pool = make_pool(1)
        pool.try_reserve(REQUEST, clock())
        with pytest.raises(QueueTimeoutError):
            await pool.reserve(REQUEST, 0.01)
        assert len(pool.queue) == 0

    async def test_a_replica_that_becomes_ready_serves_those_held_for_it(self, make_pool, clock):
        pool = make_pool()
        pool.add(Endpoint("new", parse_address("http://127.0.0.1:1"), 2))
        waiters = [await queued(pool), await queued(pool)]
        pool.mark_ready("new", is_ready=True)
        assert [(await result_of(task)).endpoint_id for task in waiters] == ["new", "new"]
        assert pool.in_flight == 2

    async def test_a_recovered_circuit_serves_waiters_at_the_next_pump(self, make_pool, clock):
        pool = make_pool(1)
        fail(pool, clock, 3)
        waiter = await queued(pool)
        pool.pump(clock())
        assert not waiter.done()
        clock.advance(1.0)
        pool.pump(clock())
        assert (await result_of(waiter)).endpoint_id == "e0"

    async def test_while_requests_wait_a_grown_pause_is_as_short_as_the_first(
        self, make_pool, clock
    ):
        pool = make_pool(1)
        fail(pool, clock, 3)
        clock.advance(1.0)
        fail(pool, clock, 1)  # the trial: the pause is of two seconds now
        first, second = await queued(pool), await queued(pool)
        clock.advance(0.9)
        pool.pump(clock())
        assert not first.done()
        clock.advance(0.1)
        pool.pump(clock())
        lease = await result_of(first)
        assert not second.done(), "one request is enough to try it"
        lease.release(Verdict.OK, clock(), None)
        assert (await result_of(second)).endpoint_id == "e0"

    async def test_only_a_pool_that_wants_no_replica_wakes_the_controller(self, make_pool, clock):
        pool = make_pool()
        woken = []
        pool.wake = lambda: woken.append(True)
        first = await queued(pool)
        assert woken == [True]
        pool.wanted = 1
        second = await queued(pool)
        assert woken == [True]
        for waiter in (first, second):
            waiter.cancel()
        await asyncio.wait([first, second])

    async def test_new_bounds_apply_at_once_and_endpoints_stay(self, make_pool, clock):
        pool = make_pool(1)
        pool.try_reserve(REQUEST, clock())
        pool.reconfigure(PoolParams(True, True, 0, 0, 0.1, 5.0))
        with pytest.raises(QueueFullError):
            await pool.reserve(REQUEST, 1.0)
        assert pool.in_flight == 1


class TestHealth:
    def test_an_endpoint_takes_traffic_once_it_is_ready(self, make_pool, clock):
        pool = make_pool()
        pool.add(Endpoint("new", parse_address("http://127.0.0.1:1"), 1))
        assert pool.try_reserve(REQUEST, clock()) is None
        pool.mark_ready("new", is_ready=True)
        assert pool.try_reserve(REQUEST, clock()) is not None
        pool.mark_ready("new", is_ready=False)
        assert pool.ready == 0

    def test_a_verdict_on_an_endpoint_that_is_gone_is_ignored(self, make_pool):
        make_pool().mark_ready("gone", is_ready=True)

    def test_three_failures_in_a_row_eject_for_a_while(self, make_pool, clock):
        pool = make_pool(4)
        fail(pool, clock, 2)
        assert (pool.ready, pool.ejections) == (1, 0)
        fail(pool, clock, 1)
        assert (pool.ready, pool.ejections) == (0, 1)
        clock.advance(1.0)
        assert pool.ready == 1

    def test_a_trial_that_nobody_makes_is_left_to_the_next_request(self, make_pool, clock):
        pool = make_pool(4)
        fail(pool, clock, 3)
        clock.advance(1.0)
        endpoint = pool.reserve_warm(clock())
        assert endpoint is not None
        pool.release(endpoint, Verdict.UNTRIED, clock(), clock())
        assert pool.try_reserve(REQUEST, clock()) is not None

    async def test_nor_is_it_lost_with_a_waiter_that_gives_up(self, make_pool, clock):
        pool = make_pool(1)
        fail(pool, clock, 3)
        waiting = asyncio.create_task(pool.reserve(REQUEST, 5.0))
        await asyncio.sleep(0)
        clock.advance(1.0)
        pool.pump(clock())
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert pool.try_reserve(REQUEST, clock()) is not None

    def test_after_the_pause_one_request_tries_it(self, make_pool, clock):
        pool = make_pool(4)
        fail(pool, clock, 3)
        clock.advance(1.0)
        trial = pool.try_reserve(REQUEST, clock())
        assert trial is not None
        assert pool.try_reserve(REQUEST, clock()) is None
        trial.release(Verdict.OK, clock(), None)
        assert pool.try_reserve(REQUEST, clock()) is not None

    def test_what_is_not_the_endpoints_fault_does_not_count(self, make_pool, clock):
        pool = make_pool(4)
        for _ in range(10):
            pool.try_reserve(REQUEST, clock()).release(Verdict.CANCELLED, clock(), None)
        assert (pool.ready, pool.ejections) == (1, 0)

    def test_one_that_refuses_is_set_aside_until_it_answers(self, make_pool, clock):
        pool = make_pool(4)
        working = pool.try_reserve(REQUEST, clock())
        for _ in range(3):
            pool.try_reserve(REQUEST, clock()).release(Verdict.REJECTED, clock(), None)
        assert (pool.ready, pool.ejections) == (0, 1)
        working.release(Verdict.OK, clock(), None)
        assert pool.ready == 1, "it was only full"

    def test_a_good_probe_after_bad_ones_readmits_an_ejected_endpoint(self, make_pool, clock):
        pool = make_pool(4)
        fail(pool, clock, 3)
        pool.mark_ready("e0", is_ready=True)
        assert pool.ready == 0, "it was ready all along: its attempts fail"
        pool.mark_ready("e0", is_ready=False)
        pool.mark_ready("e0", is_ready=True)
        assert pool.ready == 1


class TestOutliers:
    def answer(self, pool, served_s, times=20) -> None:
        """Every endpoint answers so often, each in its time."""
        for endpoint, taken_s in zip(pool.endpoints.values(), served_s, strict=True):
            for _ in range(times):
                pool.learn(endpoint, 300, taken_s)

    def states(self, pool, clock) -> list[str]:
        return [str(endpoint.state(clock())) for endpoint in pool.endpoints.values()]

    def test_one_far_slower_than_its_peers_is_set_aside_for_a_while(self, make_pool, clock):
        pool = make_pool(4, 4, 4)
        self.answer(pool, (0.1, 0.1, 0.9))
        assert pool.judge(clock()) == 1
        assert self.states(pool, clock) == ["ready", "ready", "slow"]
        assert {pool.try_reserve(REQUEST, clock()).endpoint_id for _ in range(8)} == {"e0", "e1"}
        assert (pool.ejections, pool.ready) == (1, 2)
        clock.advance(1.0)
        assert pool.ready == 3

    def test_few_answers_prove_nothing(self, make_pool, clock):
        pool = make_pool(4, 4, 4)
        self.answer(pool, (0.1, 0.1, 0.9), times=19)
        assert pool.judge(clock()) == 0

    def test_back_again_it_is_judged_by_what_it_does_then(self, make_pool, clock):
        pool = make_pool(4, 4)
        self.answer(pool, (0.1, 0.9))
        pool.judge(clock())
        clock.advance(1.0)
        assert pool.judge(clock()) == 0
        self.answer(pool, (0.1, 0.9))
        assert pool.judge(clock()) == 1
        clock.advance(1.5)
        assert self.states(pool, clock) == ["ready", "slow"], "for longer than the first time"

    def test_at_most_the_largest_share_is_set_aside(self, make_pool, clock):
        pool = make_pool(4, 4, 4, 4, 4)
        self.answer(pool, (0.1, 0.1, 0.1, 0.9, 0.8))
        pool.reconfigure(replace(PARAMS, outliers=OutlierParams(max_share=0.3)))
        assert pool.judge(clock()) == 1
        assert self.states(pool, clock)[3:] == ["slow", "ready"]

    def test_those_set_aside_for_failures_count_too(self, make_pool, clock):
        pool = make_pool(4, 4)
        self.answer(pool, (0.1, 0.9))
        for _ in range(3):
            pool.endpoints["e0"].circuit.failed(clock())
        assert pool.judge(clock()) == 0

    def test_slow_ones_are_used_again_when_their_peers_go(self, make_pool, clock):
        pool = make_pool(4, 4)
        self.answer(pool, (0.1, 0.9))
        pool.judge(clock())
        pool.mark_ready("e0", is_ready=False)
        assert pool.try_reserve(REQUEST, clock()).endpoint_id == "e1"
        assert pool.is_panicking


class TestPanic:
    @pytest.mark.parametrize(("is_last_resort", "used"), [(True, 4), (False, 0)])
    def test_with_none_left_all_are_used_unless_there_is_another_backend(
        self, make_pool, clock, is_last_resort, used
    ):
        pool = make_pool(4, 4, 4, 4, params=replace(PARAMS, is_last_resort=is_last_resort))
        for endpoint in pool.endpoints.values():
            for _ in range(3):
                endpoint.circuit.failed(clock())
        pool.rotation.changed()
        assert pool.ready == used
        assert pool.is_panicking is is_last_resort

    def test_while_one_works_requests_wait_for_it_rather_than_fail(self, make_pool, clock):
        pool = make_pool(1, 1, 1, params=replace(PARAMS, is_last_resort=True))
        for name in ("e0", "e1"):
            for _ in range(3):
                pool.endpoints[name].circuit.failed(clock())
        pool.rotation.changed()
        assert pool.try_reserve(REQUEST, clock()).endpoint_id == "e2"
        assert pool.try_reserve(REQUEST, clock()) is None

    def test_a_success_ends_it(self, make_pool, clock):
        pool = make_pool(4, params=replace(PARAMS, is_last_resort=True))
        fail(pool, clock, 3)
        assert pool.is_panicking
        pool.try_reserve(REQUEST, clock()).release(Verdict.OK, clock(), None)
        assert not pool.is_panicking

    def test_who_is_set_aside_is_suspect_to_the_probes(self, make_pool, clock):
        pool = make_pool(4)
        fail(pool, clock, 2)
        assert not pool.rotation.suspicion.is_set()
        fail(pool, clock, 1)
        assert pool.rotation.suspicion.is_set()


class TestSlowStart:
    PARAMS = replace(PARAMS, slow_start_s=10.0)

    def test_a_new_endpoint_gets_its_slots_bit_by_bit(self, make_pool, clock):
        pool = make_pool(4, params=self.PARAMS)
        assert pool.snapshot(1, clock()).slots == 1
        clock.advance(5.0)
        assert pool.snapshot(1, clock()).slots == 2
        clock.advance(5.0)
        assert pool.snapshot(1, clock()).slots == 4
        assert pool.rotation._traffic is not None, "settled: nothing is asked again"

    def test_so_does_one_that_recovers(self, make_pool, clock):
        pool = make_pool(4, params=self.PARAMS)
        clock.advance(10.0)
        fail(pool, clock, 3)
        clock.advance(1.0)
        pool.try_reserve(REQUEST, clock()).release(Verdict.OK, clock(), None)
        assert pool.snapshot(1, clock()).slots == 1

    def test_so_does_one_that_an_operator_gives_back(self, make_pool, clock):
        pool = make_pool(4, params=self.PARAMS)
        pool.withdraw("e0", is_withdrawn=True)
        clock.advance(10.0)
        pool.withdraw("e0", is_withdrawn=False)
        assert pool.snapshot(1, clock()).slots == 1


class TestLearnedCapacity:
    PARAMS = replace(PARAMS, adaptive=AdaptiveParams(10, 20))

    @pytest.mark.parametrize(
        ("verdict", "slots"),
        [(Verdict.REJECTED, 14), (Verdict.FAILED, 14), (Verdict.CANCELLED, 20), (Verdict.OK, 20)],
    )
    def test_a_replica_that_is_overburdened_gets_less(self, make_pool, clock, verdict, slots):
        pool = make_pool(1, params=self.PARAMS)
        endpoint = pool.endpoints["e0"]
        endpoint.limit._set(20.0)
        endpoint._take_limit(endpoint.limit)
        pool.try_reserve(REQUEST, clock()).release(verdict, clock(), None)
        assert endpoint.slots == slots


class TestVersions:
    """e0 has version 1, e1 has versions 1 and 2."""

    @pytest.fixture
    def pool(self, make_pool):
        pool = make_pool(1, 1)
        pool.endpoints["e0"].versions = frozenset({"1"})
        pool.endpoints["e1"].versions = frozenset({"1", "2"})
        return pool

    async def test_a_version_goes_to_those_that_have_it(self, pool, clock):
        lease = pool.try_reserve(make_request(version="2"), clock())
        assert lease.endpoint_id == "e1"
        assert pool.try_reserve(make_request(version="2"), clock()) is None
        assert pool.reserve_warm_version("2", clock()) is None
        assert pool.snapshot(1, clock(), "2").free_slots == 0
        assert pool.reserve_warm_version("1", clock()).id == "e0"

    @pytest.mark.parametrize("version", [None, "9"], ids=["any", "one that nobody has"])
    async def test_otherwise_all_are_asked(self, pool, clock, version):
        request = make_request(version=version)
        assert {pool.try_reserve(request, clock()).endpoint_id for _ in range(2)} == {"e0", "e1"}

    async def test_what_is_not_known_may_be_there(self, pool, clock):
        pool.endpoints["e0"].versions = None
        request = make_request(version="2")
        assert {pool.try_reserve(request, clock()).endpoint_id for _ in range(2)} == {"e0", "e1"}

    async def test_probes_learn_that_versions_matter_with_the_first_such_request(self, pool, clock):
        pool.try_reserve(REQUEST, clock())
        assert not pool.rotation.versions_matter
        pool.try_reserve(make_request(version="1"), clock())
        assert pool.rotation.versions_matter
        assert pool.rotation.suspicion.is_set()

    async def test_who_waits_for_a_version_gets_it_and_holds_nobody_else_up(self, pool, clock):
        second = pool.try_reserve(make_request(version="2"), clock())
        picky = await queued(pool, make_request(version="2"))
        other = await queued(pool)
        assert (await result_of(other)).endpoint_id == "e0"
        assert not picky.done()
        second.release(Verdict.OK, clock(), None)
        assert (await result_of(picky)).endpoint_id == "e1"
        assert (pool.in_flight, len(pool.queue)) == (2, 0)

    async def test_a_slot_handed_over_elsewhere_is_exchanged_for_a_free_one(self, pool, clock):
        leases = [pool.try_reserve(make_request(version=v), clock()) for v in ("1", "2")]
        picky = await queued(pool, make_request(version="2"))
        for lease in sorted(leases, key=lambda lease: lease.endpoint_id):
            lease.release(Verdict.OK, clock(), None)
        assert (await result_of(picky)).endpoint_id == "e1"
        assert pool.in_flight == 1


class TestDrain:
    def test_a_withdrawn_endpoint_stays_so_until_it_is_given_back(self, make_pool, clock):
        pool = make_pool(1)
        assert pool.withdraw("e0", is_withdrawn=True) is pool.endpoints["e0"]
        pool.mark_ready("e0", is_ready=False)
        pool.mark_ready("e0", is_ready=True)
        assert pool.try_reserve(REQUEST, clock()) is None
        pool.withdraw("e0", is_withdrawn=False)
        assert pool.try_reserve(REQUEST, clock()) is not None
        assert pool.withdraw("gone", is_withdrawn=True) is None

    def test_an_idle_endpoint_has_drained_at_once(self, make_pool, clock):
        pool = make_pool(1)
        assert pool.drain("e0").is_set()
        assert pool.try_reserve(REQUEST, clock()) is None

    def test_a_busy_endpoint_drains_with_its_last_request(self, make_pool, clock):
        pool = make_pool(2)
        leases = [pool.try_reserve(REQUEST, clock()) for _ in range(2)]
        drained = pool.drain("e0")
        leases[0].release(Verdict.OK, clock(), None)
        assert not drained.is_set()
        leases[1].release(Verdict.OK, clock(), None)
        assert drained.is_set()

    def test_attempts_at_a_removed_endpoint_still_release(self, make_pool, clock):
        pool = make_pool(1)
        lease = pool.try_reserve(REQUEST, clock())
        pool.remove("e0")
        pool.remove("e0")
        lease.release(Verdict.FAILED, clock(), None)
        assert (pool.in_flight, pool.ready) == (0, 0)


class TestLearning:
    async def serve(self, pool, clock, request=REQUEST) -> None:
        lease = pool.try_reserve(request, clock())
        response = await lease.send(request, b"{}", 1.0)
        lease.release(Verdict.OK, clock(), response)

    async def test_service_times_and_use_are_learned(self, make_pool, clock):
        pool = make_pool(2)
        await self.serve(pool, clock)
        assert pool.service_times.estimate(300).mean_s == pytest.approx(0.02)
        used_s = pool.take_used_s()
        assert used_s == {"": pytest.approx(0.02 / 2)}, "half of a replica with two slots"
        assert pool.take_used_s() == {}

    @pytest.mark.parametrize(
        ("status", "facts"),
        [(500, {}), (400, {}), (200, {"is_inference": False})],
        ids=["errors are quick", "refusals are quick", "metadata is quick"],
    )
    async def test_what_does_not_run_the_model_teaches_nothing(
        self, make_pool, clock, caller, status, facts
    ):
        pool = make_pool(2)
        caller.status = status
        await self.serve(pool, clock, make_request(**facts))
        assert pool.service_times.estimate(300).mean_s == 0.1

    def test_the_start_is_predicted_less_the_time_already_waited(self, make_pool, clock):
        pool = make_pool()
        assert pool.snapshot(1, clock()).ready_in_s == 5.0
        pool.starting_since = clock()
        clock.advance(2.0)
        assert pool.snapshot(1, clock()).ready_in_s == 3.0
        clock.advance(9.0)
        assert pool.snapshot(1, clock()).ready_in_s == 0.0
