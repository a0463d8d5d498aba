"""Jobs in one SQLite file, for the processes of one machine.

All of it happens in one thread. What is asked while a transaction is written goes into the next
one together: a hundred jobs that come at once cost one `fsync`. The journal is written ahead with
`synchronous = FULL`, so what has been committed is on the disk, as far as the disk tells the truth.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from router.jobs import sqlite_statements as sql
from router.jobs.deliveries import sqlite as deliveries
from router.jobs.records import End, Job, Lane, Result, Spec, State, answer_bytes
from router.jobs.store import (
    GIVEN_UP,
    NO_LIMIT,
    Document,
    not_durable,
    too_many_bytes,
    too_many_jobs,
)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

_MAX_TOGETHER = 256
_BUSY_TIMEOUT_S = 5.0
_NOT_WRITTEN = "the journal of jobs cannot be written"


class SqliteStore:
    """The store of a gateway without a Redis for its jobs (a `JobStore`)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._connection: sqlite3.Connection | None = None
        self._asked: list[tuple[Work, asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.deliveries = deliveries.SqliteDeliveries(self._do)

    async def open(self) -> None:
        """Create the file, or take up what is in it. Raises NotDurableError."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
        except (OSError, sqlite3.Error) as error:
            raise not_durable(_NOT_WRITTEN, error) from error

    async def close(self) -> None:
        """Write what was asked, and close the file."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)

    async def add(
        self, jobs: Sequence[Job], most_open: int, most_bytes: int = NO_LIMIT
    ) -> list[Job]:
        """See `JobStore`. Raises NotDurableError and TooManyJobsError."""
        return await self._do(lambda one: _add(one, jobs, most_open, most_bytes))

    async def get(self, job_id: str) -> Job | None:
        """See `JobStore`."""
        return await self._do(lambda one: _get(one, job_id))

    async def listed(
        self,
        tenant: str | None,
        *,
        states: Collection[State] = (),
        batch: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Job]:
        """See `JobStore`."""
        where, values = ["1"], list[Any]()
        if tenant is not None:
            where.append("tenant = ?")
            values.append(tenant)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        order = "seq"
        if batch is not None:
            where.append("batch = ?")
            values.append(batch)
            order = "line"
        if after:
            where.append(sql.AFTER.format(order=order))
            values.append(after)
        statement = sql.LISTED.format(where=" AND ".join(where), order=order)

        def work(one: sqlite3.Connection) -> list[Job]:
            return [_job(row) for row in one.execute(statement, (*values, limit))]

        return await self._do(work)

    async def lanes(self) -> list[Lane]:
        """See `JobStore`."""
        return await self._do(lambda one: [Lane(*row) for row in one.execute(sql.LANES)])

    async def claim(self, lane: str, worker: str, most: int, now: float) -> list[Job]:
        """See `JobStore`."""
        values = {"lane": lane, "worker": worker, "most": most, "now": now}

        def work(one: sqlite3.Connection) -> list[Job]:
            rows = one.execute(sql.CLAIM, values).fetchall()
            return [_job(row[1:]) for row in sorted(rows, key=lambda row: row[0])]

        return await self._do(work)

    async def end(self, worker: str, ends: Sequence[End]) -> list[bool]:
        """See `JobStore`."""

        def work(one: sqlite3.Connection) -> list[bool]:
            ours, held = list[bool](), Counter[str]()
            for end in ends:
                values = (end.state, end.at, end.cost_usd, _packed(end.result), end.id, worker,
                          end.attempt)  # fmt: skip
                row = one.execute(sql.END, values).fetchone()
                ours.append(row is not None)
                if row is not None:
                    held[row[0]] += answer_bytes(end.result)
            one.executemany(sql.HOLD, held.items())
            return ours

        return await self._do(work)

    async def put_back(
        self, worker: str, job_id: str, attempt: int, ready_at: float, *, counts: bool
    ) -> bool:
        """See `JobStore`."""
        values = (attempt if counts else attempt - 1, ready_at, job_id, worker, attempt)
        return await self._do(lambda one: one.execute(sql.PUT_BACK, values).rowcount > 0)

    async def beat(self, worker: str, lease_s: float, now: float) -> None:
        """See `JobStore`."""
        await self._do(lambda one: one.execute(sql.BEAT, (worker, now + lease_s)))

    async def recover(self, most_attempts: int, now: float) -> int:
        """See `JobStore`."""
        values = {"most": most_attempts, "now": now, "cause": _packed(GIVEN_UP)}

        def work(one: sqlite3.Connection) -> int:
            dead = one.execute(sql.BURY, values).rowcount
            back = one.execute(sql.RECOVER, values).rowcount
            one.execute(sql.FORGET_WORKERS, values)
            return dead + back

        return await self._do(work)

    async def retire(self, worker: str) -> None:
        """See `JobStore`."""

        def work(one: sqlite3.Connection) -> None:
            one.execute(sql.RETIRE, (worker,))
            one.execute(sql.FORGET_WORKER, (worker,))

        await self._do(work)

    async def drop_open(
        self, state: State, now: float, *, job_id: str = "", batch: str = ""
    ) -> int:
        """See `JobStore`."""
        statement = sql.DROP_ONE if job_id else sql.DROP_BATCH
        values = (state, now, job_id or batch)
        return await self._do(lambda one: one.execute(statement, values).rowcount)

    async def retry(self, job_id: str, due_at: float) -> bool:
        """See `JobStore`."""

        def work(one: sqlite3.Connection) -> bool:
            job = _get(one, job_id)
            if job is None or one.execute(sql.RETRY, (due_at, job_id)).rowcount == 0:
                return False
            if job.result is not None:
                one.execute(sql.HOLD, (job.tenant, -answer_bytes(job.result)))
            return True

        return await self._do(work)

    async def counts(self, tenant: str | None = None) -> Mapping[State, int]:
        """See `JobStore`."""
        where, values = ("WHERE tenant = ?", (tenant,)) if tenant is not None else ("", ())
        return await self._count(sql.COUNTS.format(where=where), values)

    async def batch_counts(self, batch: str) -> Mapping[State, int]:
        """See `JobStore`."""
        return await self._count(sql.BATCH_COUNTS, (batch,))

    async def sweep(self, before: float, most: int) -> list[Job]:
        """See `JobStore`."""

        def work(one: sqlite3.Connection) -> list[Job]:
            gone = [_job(row) for row in one.execute(sql.SWEEP, (before, most)).fetchall()]
            one.executemany(sql.HOLD, [(job.tenant, -job.held_bytes) for job in gone])
            return gone

        return await self._do(work)

    async def put(self, kind: str, document: Document) -> bool:
        """See `JobStore`."""
        new = (kind, document.id, document.tenant, document.version, document.content)
        changed = (document.version, document.content, kind, document.id, document.version - 1)

        def work(one: sqlite3.Connection) -> bool:
            if document.version == 1:
                return one.execute(sql.NEW_DOCUMENT, new).rowcount > 0
            return one.execute(sql.CHANGE_DOCUMENT, changed).rowcount > 0

        return await self._do(work)

    async def read(self, kind: str, document_id: str) -> Document | None:
        """See `JobStore`."""

        def work(one: sqlite3.Connection) -> Document | None:
            row = one.execute(sql.DOCUMENT, (kind, document_id)).fetchone()
            return Document(*row) if row is not None else None

        return await self._do(work)

    async def documents(
        self, kind: str, tenant: str | None, after: str = "", limit: int = 100
    ) -> list[Document]:
        """See `JobStore`."""
        values = {"kind": kind, "tenant": tenant, "after": after, "limit": limit}
        return await self._do(
            lambda one: [Document(*row) for row in one.execute(sql.DOCUMENTS, values)]
        )

    async def remove(self, kind: str, document_id: str) -> bool:
        """See `JobStore`."""
        return await self._do(
            lambda one: one.execute(sql.REMOVE_DOCUMENT, (kind, document_id)).rowcount > 0
        )

    # -- the thread ------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        """The connection, made if need be: a request may come before `open` does."""
        if self._connection is not None:
            return self._connection
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(
            self._file, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.executescript(sql.SCHEMA + deliveries.SCHEMA)
        self._connection = connection
        return connection

    async def _count(self, statement: str, values: tuple[Any, ...]) -> Mapping[State, int]:
        return await self._do(
            lambda one: {State(name): count for name, count in one.execute(statement, values)}
        )

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have something done in the next transaction; returns once that is on the disk."""
        asked: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.append((work, asked))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await asked

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._asked:
            taken, self._asked = self._asked[:_MAX_TOGETHER], self._asked[_MAX_TOGETHER:]
            works = [work for work, _ in taken]
            found = await loop.run_in_executor(self._thread, self._transaction, works)
            for (_, asked), answer in zip(taken, found, strict=True):
                if asked.done():
                    continue  # whoever asked has been cancelled
                if isinstance(answer, BaseException):
                    asked.set_exception(answer)
                else:
                    asked.set_result(answer)

    def _transaction(self, works: Sequence[Work]) -> list[Any]:
        connection = None
        try:
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            answers = [_alone(connection, work) for work in works]
            connection.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
            return [not_durable(_NOT_WRITTEN, error)] * len(works)
        return answers


def _alone(connection: sqlite3.Connection, work: Work) -> Any:  # noqa: ANN401  of any work
    """Do one thing of a transaction: what it raises undoes that alone."""
    connection.execute("SAVEPOINT one")
    try:
        answer = work(connection)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001  handed to whoever asked for it
        connection.execute("ROLLBACK TO one")
        answer = error
    connection.execute("RELEASE one")
    return answer


def _add(
    one: sqlite3.Connection, jobs: Sequence[Job], most_open: int, most_bytes: int
) -> list[Job]:
    kept, new, held = list[Job](), 0, 0
    for job in jobs:
        values = (job.id, job.lane, job.tenant, job.created_at, job.due_at, job.batch, job.line,
                  job.state, job.ended_at, _packed(job.spec),
                  _packed(job.result) if job.result is not None else None)  # fmt: skip
        is_new = one.execute(sql.ADD, values).rowcount > 0
        new += is_new and job.state is State.QUEUED
        held += job.held_bytes if is_new else 0
        found = job if is_new else _get(one, job.id)
        assert found is not None  # noqa: S101  it is new, or was there
        kept.append(found)
    if held:
        one.execute(sql.HOLD, (jobs[0].tenant, held))
    if new:
        _check(one, jobs[0].tenant, most_open, most_bytes)
    return kept


def _check(one: sqlite3.Connection, tenant: str, most_open: int, most_bytes: int) -> None:
    (count,) = one.execute(sql.OPEN_OF_TENANT, (tenant,)).fetchone()
    if count > most_open:
        raise too_many_jobs(most_open)
    (held,) = one.execute(sql.HELD, (tenant,)).fetchone() or (0,)
    if held > most_bytes:
        raise too_many_bytes(most_bytes)


def _get(one: sqlite3.Connection, job_id: str) -> Job | None:
    row = one.execute(sql.GET, (job_id,)).fetchone()
    return _job(row) if row is not None else None


def _packed(value: Spec | Result) -> bytes:
    return msgspec.msgpack.encode(value)


_SPEC = msgspec.msgpack.Decoder(Spec)
_RESULT = msgspec.msgpack.Decoder(Result)


def _job(row: tuple[Any, ...]) -> Job:
    id_, lane, tenant, created, due, batch, line, state, attempt, worker, ended, cost, spec, end = (
        row
    )
    return Job(
        id_, lane, tenant, created, due, _SPEC.decode(spec), batch, line, State(state), attempt,
        worker, ended, cost, _RESULT.decode(end) if end is not None else None,
    )  # fmt: skip
