"""What every store of jobs promises, asked of each of them."""

import asyncio

import pytest

from router.domain.errors import TooManyJobsError
from router.jobs.records import End, Job, Result, Spec, State, lane_of
from router.jobs.store import GIVEN_UP, Document, JobStore

MOST = 100
LANE = lane_of("m", "t", "", 60.0)


def job(number: int, *, batch: str = "", tenant: str = "t", **more: object) -> Job:
    lane = lane_of("m", tenant, batch, 60.0)
    given = {"created_at": 0.0, "due_at": 60.0 + number, "spec": Spec(target=f"/{number}"), **more}
    return Job(f"job-{number:03}", lane, tenant, batch=batch, line=number, **given)  # type: ignore[arg-type]


def end(claimed: Job, state: State = State.DONE) -> End:
    return End(claimed.id, claimed.attempt, state, 5.0, Result(200, body=b"answer"), 0.25)


async def claimed(store: JobStore, worker: str = "w", most: int = 1, now: float = 0.0) -> list[Job]:
    await store.beat(worker, 60.0, now)
    return await store.claim(LANE, worker, most, now)


async def test_a_job_is_found_as_it_was_given(store: JobStore):
    spec = Spec(key="k", headers=(("a", "b"),), body=b"\x00\xff", custom_id="é")
    given = job(1, spec=spec)
    assert await store.add([given], MOST) == [given]
    assert await store.get(given.id) == given
    assert await store.get("no-such-job") is None


async def test_a_known_id_gives_the_job_that_has_it(store: JobStore):
    await store.add([job(1)], MOST)
    (first,) = await claimed(store)
    (again,) = await store.add([job(1, spec=Spec(target="/other"))], MOST)
    assert again == first
    assert (await store.counts("t")) == {State.RUNNING: 1}


async def test_lanes_are_served_in_the_order_of_coming(store: JobStore):
    await store.add([job(n) for n in range(5)], MOST)
    assert [(lane.name, lane.waiting, lane.due_at) for lane in await store.lanes()] == [
        (LANE, 5, 60.0)
    ]
    assert [one.id for one in await claimed(store, most=2)] == ["job-000", "job-001"]
    (lane,) = await store.lanes()
    assert (lane.waiting, lane.due_at) == (3, 62.0)
    assert [one.id for one in await claimed(store, most=9)] == ["job-002", "job-003", "job-004"]
    assert await store.lanes() == []
    assert await claimed(store) == []


async def test_jobs_claimed_at_once_by_many_are_each_ones_own(store: JobStore):
    await store.add([job(n) for n in range(40)], MOST)
    taken = await asyncio.gather(*(claimed(store, f"w{n}", most=7) for n in range(8)))
    ids = [one.id for jobs in taken for one in jobs]
    assert sorted(ids) == [f"job-{n:03}" for n in range(40)]


async def test_a_result_is_written_once(store: JobStore):
    await store.add([job(1)], MOST)
    (mine,) = await claimed(store)
    assert await store.end("w", [end(mine), end(mine, State.DEAD)]) == [True, False]
    assert await store.end("other", [end(mine)]) == [False]
    done = await store.get(mine.id)
    assert done is not None
    assert (done.state, done.result, done.cost_usd, done.ended_at) == (
        State.DONE, Result(200, body=b"answer"), 0.25, 5.0,
    )  # fmt: skip
    assert await store.counts() == {State.DONE: 1}


async def test_what_is_put_back_comes_before_what_came_later(store: JobStore):
    await store.add([job(n) for n in range(3)], MOST)
    first, second = await claimed(store, most=2)
    assert await store.put_back("w", second.id, 1, 0.0, counts=False)
    assert await store.put_back("w", first.id, 1, 30.0, counts=True)
    assert not await store.put_back("w", first.id, 1, 0.0, counts=True)
    again = await claimed(store, most=9, now=10.0)
    assert [(one.id, one.attempt) for one in again] == [("job-001", 1), ("job-002", 1)]
    assert [(one.id, one.attempt) for one in await claimed(store, now=30.0)] == [("job-000", 2)]


async def test_only_jobs_of_the_dead_are_begun_again(store: JobStore):
    await store.add([job(n) for n in range(4)], MOST)
    (dead,) = await claimed(store, "dead")
    (living,) = await claimed(store, "living")
    await store.beat("dead", 0.001, -1.0)  # to both of their clocks it is over
    await asyncio.sleep(0.01)
    assert await store.recover(3, 1.0) == 1
    assert await store.end("dead", [end(dead)]) == [False]
    assert [one.id for one in await claimed(store, "living")] == [dead.id]
    assert await store.end("living", [end(living)]) == [True]
    await store.beat("living", 60.0, 1.0)
    assert await store.recover(3, 1.0) == 0


async def test_what_has_been_begun_too_often_is_a_dead_letter(store: JobStore):
    await store.add([job(1)], MOST)
    for _ in range(2):
        assert await claimed(store, "dead")
        await store.beat("dead", 0.001, -1.0)
        await asyncio.sleep(0.01)
        await store.recover(2, 1.0)
    dead = await store.get("job-001")
    assert dead is not None
    assert (dead.state, dead.result) == (State.DEAD, GIVEN_UP)
    assert await store.listed("t", states=[State.DEAD]) == [dead]
    assert await store.retry(dead.id, 99.0)
    assert not await store.retry(dead.id, 99.0)
    (again,) = await claimed(store)
    assert (again.attempt, again.result, again.due_at) == (1, None, 99.0)


async def test_a_worker_that_retires_gives_back_what_it_has(store: JobStore):
    await store.add([job(n) for n in range(2)], MOST)
    await claimed(store, "old", most=2)
    await store.retire("old")
    assert [(one.id, one.attempt) for one in await claimed(store, "new", most=9)] == [
        ("job-000", 1), ("job-001", 1),
    ]  # fmt: skip


async def test_jobs_end_without_an_answer(store: JobStore):
    await store.add([job(n, batch="b") for n in range(3)], MOST)
    await store.add([job(9)], MOST)
    lane = lane_of("m", "t", "b", 60.0)
    await store.beat("w", 60.0, 0.0)
    (running,) = await store.claim(lane, "w", 1, 0.0)
    assert await store.drop_open(State.CANCELLED, 7.0, job_id="job-001") == 1
    assert await store.drop_open(State.EXPIRED, 7.0, batch="b") == 2
    assert await store.drop_open(State.CANCELLED, 7.0, job_id="job-001") == 0
    assert await store.end("w", [end(running)]) == [False]
    assert await store.batch_counts("b") == {State.CANCELLED: 1, State.EXPIRED: 2}
    assert [one.name for one in await store.lanes()] == [LANE]


async def test_lists_are_paged_and_of_one_tenant(store: JobStore):
    await store.add([job(n) for n in range(5)], MOST)
    await store.add([job(n, tenant="other") for n in range(10, 13)], MOST)
    page = await store.listed("t", limit=3)
    rest = await store.listed("t", after=page[-1].id, limit=3)
    assert [one.line for one in page + rest] == [0, 1, 2, 3, 4]
    assert len(await store.listed(None)) == 8
    assert await store.listed("t", states=[State.DONE]) == []
    assert await store.listed("t", batch="no-such") == []


async def test_lines_of_a_batch_come_in_their_order(store: JobStore):
    await store.add([job(n, batch="b") for n in (3, 1, 2)], MOST)
    assert [one.line for one in await store.listed("t", batch="b", limit=2)] == [1, 2]
    assert [one.line for one in await store.listed("t", batch="b", after="job-002")] == [3]


async def test_a_tenant_has_no_more_open_jobs_than_it_may(store: JobStore):
    await store.add([job(n) for n in range(3)], 3)
    with pytest.raises(TooManyJobsError):
        await store.add([job(3)], 3)
    await store.add([job(n, tenant="other") for n in range(10, 12)], 3)
    assert await store.counts("t") == {State.QUEUED: 3}
    (mine,) = await claimed(store)
    await store.end("w", [end(mine)])
    assert await store.add([job(3)], 3)


async def test_a_tenant_has_no_more_bytes_kept_than_it_may(store: JobStore):
    async def kept(*jobs: Job) -> bool:
        try:
            await store.add(jobs, MOST, 10)
        except TooManyJobsError:
            return False
        return True

    assert await kept(job(0, spec=Spec(body=b"1234")), job(1, spec=Spec(body=b"1234")))
    assert not await kept(job(2, spec=Spec(body=b"123")))
    assert not await kept(job(2, spec=Spec(payload="object", length=3, own_payload=True)))
    assert await kept(job(3, spec=Spec(payload="of a batch", length=999)), job(4, tenant="t"))
    assert await kept(job(9, tenant="other", spec=Spec(body=b"1234567890")))
    first, second = await claimed(store, most=2)
    answer = Result(200, content="object", length=2)
    assert await store.end("w", [End(first.id, 1, State.DONE, 5.0, answer)] * 2) == [True, False]
    assert not await kept(job(5, spec=Spec(body=b"1")))
    await store.end("w", [End(second.id, 1, State.DEAD, 50.0, Result(500, body=b"7 bytes"))])
    assert [one.held_bytes for one in await store.sweep(10.0, 10)] == [6]
    assert not await kept(job(6))
    await store.retry(second.id, 99.0)
    await store.drop_open(State.CANCELLED, 60.0, job_id=second.id)
    await store.sweep(70.0, 10)
    assert await kept(job(7, spec=Spec(body=b"1234567890")))
    assert not await kept(job(8, spec=Spec(body=b"1")))


async def test_what_is_bad_from_the_start_is_kept_and_never_begun(store: JobStore):
    bad = job(1, batch="b", state=State.DEAD, ended_at=3.0, result=Result(cause="no JSON"))
    await store.add([bad], MOST)
    assert await store.lanes() == []
    assert await store.listed("t", batch="b") == [bad]


async def test_what_has_ended_is_forgotten_in_time(store: JobStore):
    await store.add([job(n, batch="b") for n in range(3)], MOST)
    await store.drop_open(State.CANCELLED, 10.0, job_id="job-000")
    await store.drop_open(State.CANCELLED, 20.0, job_id="job-001")
    assert [one.id for one in await store.sweep(15.0, 10)] == ["job-000"]
    assert await store.get("job-000") is None
    assert await store.counts("t") == {State.CANCELLED: 1, State.QUEUED: 1}


async def test_a_document_changes_only_from_the_version_that_was_read(store: JobStore):
    first = Document("d1", "t", 1, b"one")
    assert await store.put("file", first)
    assert not await store.put("file", first)
    assert await store.put("file", first._replace(version=2, content=b"two"))
    assert not await store.put("file", first._replace(version=2, content=b"late"))
    assert await store.read("file", "d1") == Document("d1", "t", 2, b"two")
    assert await store.read("batch", "d1") is None
    assert await store.remove("file", "d1")
    assert not await store.remove("file", "d1")


async def test_documents_are_listed_newest_first(store: JobStore):
    for number in range(4):
        await store.put("file", Document(f"d{number}", "t" if number else "other", 1, b""))
    assert [one.id for one in await store.documents("file", "t", limit=2)] == ["d3", "d2"]
    assert [one.id for one in await store.documents("file", "t", after="d2")] == ["d1"]
    assert len(await store.documents("file", None)) == 4
