"""What every store promises of deliveries, asked of each of them."""

import asyncio

import msgspec
import pytest

from router.domain.errors import TooManyJobsError
from router.jobs.deliveries.records import About, Delivery, Progress
from router.jobs.store import JobStore

MOST = 100


def delivery(number: int, *, host: str = "a.test", tenant: str = "t", at: float = 0.0) -> Delivery:
    return Delivery(
        f"job-{number:03}", tenant, About.JOB, f"https://{host}/{number}", host, 0.5, 60.5, at
    )


async def claimed(store: JobStore, now: float, host: str = "a.test", most: int = 9) -> list[str]:
    return [one.id for one in await store.deliveries.claim(host, now, now + 30.0, most)]


async def test_a_delivery_is_found_as_it_was_given(store: JobStore):
    given = delivery(1)
    assert await store.deliveries.add(given, MOST)
    assert not await store.deliveries.add(delivery(1, host="b.test"), MOST)
    assert await store.deliveries.get(given.id) == given
    assert await store.deliveries.get("no-such") is None
    assert await store.deliveries.counts() == {Progress.WAITING: 1}


async def test_hosts_come_by_who_has_waited_longest_and_only_if_something_is_due(store: JobStore):
    for number, host, at in ((1, "late.test", 5.0), (2, "a.test", 3.0), (3, "b.test", 1.0)):
        await store.deliveries.add(delivery(number, host=host, at=at), MOST)
    assert await store.deliveries.hosts(4.0) == ["b.test", "a.test"]
    assert await claimed(store, 4.0, "b.test") == ["job-003"]
    assert await store.deliveries.hosts(5.0) == ["a.test", "late.test"]


async def test_a_claim_is_one_gateways_until_it_ends(store: JobStore):
    for number in range(6):
        await store.deliveries.add(delivery(number, at=1.0 + number), MOST)
    assert await claimed(store, 0.0) == []
    assert await claimed(store, 6.0, most=2) == ["job-000", "job-001"]
    assert await claimed(store, 6.0) == ["job-002", "job-003", "job-004", "job-005"]
    assert await claimed(store, 7.0) == []
    assert len(await claimed(store, 36.0)) == 6  # as if who claimed them had been killed


async def test_deliveries_claimed_at_once_by_many_are_each_ones_own(store: JobStore):
    for number in range(40):
        await store.deliveries.add(delivery(number), MOST)
    taken = await asyncio.gather(*(claimed(store, 1.0, most=7) for _ in range(8)))
    assert sorted(one for ids in taken for one in ids) == [f"job-{n:03}" for n in range(40)]


async def test_only_the_last_claim_settles(store: JobStore):
    await store.deliveries.add(delivery(1), MOST)
    (first,) = await store.deliveries.claim("a.test", 1.0, 2.0, 1)
    (second,) = await store.deliveries.claim("a.test", 3.0, 4.0, 1)
    again = msgspec.structs.replace(second, attempts=2, begun_at=3.0, next_at=9.0, cause="é 503")
    assert not await store.deliveries.settle(msgspec.structs.replace(first, attempts=7))
    assert await store.deliveries.settle(again)
    found = await store.deliveries.get("job-001")
    assert found is not None
    assert msgspec.structs.replace(found, version=again.version) == again
    assert await claimed(store, 8.0) == []
    assert await claimed(store, 9.0) == ["job-001"]


@pytest.mark.parametrize("state", [Progress.DELIVERED, Progress.DEAD, Progress.GONE])
async def test_what_has_ended_is_never_due_and_is_forgotten(store: JobStore, state: Progress):
    await store.deliveries.add(delivery(1), MOST)
    (one,) = await store.deliveries.claim("a.test", 1.0, 2.0, 1)
    ended = msgspec.structs.replace(one, state=state, ended_at=5.0)
    assert await store.deliveries.settle(ended)
    assert not await store.deliveries.settle(msgspec.structs.replace(ended, version=2))
    assert await store.deliveries.hosts(1e6) == []
    assert await claimed(store, 1e6) == []
    assert await store.deliveries.counts() == {state: 1}
    assert await store.deliveries.sweep(5.0, 10) == 0
    assert await store.deliveries.sweep(5.1, 10) == 1
    assert await store.deliveries.get("job-001") is None
    assert await store.deliveries.counts() == {}


async def test_the_end_of_a_job_makes_what_was_not_tried_due(store: JobStore):
    await store.deliveries.add(delivery(1, at=500.0), MOST)
    await store.deliveries.add(delivery(2, at=500.0), MOST)
    (_, tried) = await store.deliveries.claim("a.test", 500.0, 501.0, 2)
    await store.deliveries.settle(msgspec.structs.replace(tried, attempts=1, next_at=900.0))
    await store.deliveries.wake(["job-001", tried.id, "no-such"], 7.0)
    assert await store.deliveries.hosts(7.0) == ["a.test"]
    assert await claimed(store, 7.0) == ["job-001"]


async def test_a_job_that_ends_while_it_is_looked_at_is_not_missed(store: JobStore):
    await store.deliveries.add(delivery(1), MOST)
    (looked_at,) = await store.deliveries.claim("a.test", 1.0, 30.0, 1)
    await store.deliveries.wake(["job-001"], 2.0)
    assert not await store.deliveries.settle(msgspec.structs.replace(looked_at, next_at=900.0))
    assert await claimed(store, 2.0) == ["job-001"]


async def test_a_tenant_has_so_many_that_wait_and_no_more(store: JobStore):
    for number in range(2):
        await store.deliveries.add(delivery(number), 2)
    with pytest.raises(TooManyJobsError):
        await store.deliveries.add(delivery(2), 2)
    assert await store.deliveries.get("job-002") is None
    assert await store.deliveries.add(delivery(2, tenant="other"), 2)
    assert not await store.deliveries.add(delivery(1), 2)  # it is there already
    await store.deliveries.remove("job-000")
    await store.deliveries.remove("no-such")
    assert await store.deliveries.add(delivery(3), 2)
    assert await store.deliveries.counts() == {Progress.WAITING: 3}
