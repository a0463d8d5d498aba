"""Jobs in Redis Streams, for any number of gateways.

What is accepted is on the disk of Redis before `add` and `put` return: `WAITAOF` says so, and where
Redis keeps no append-only file, nothing is accepted. Results are written without that wait: one
that a crash of Redis takes with it leaves its job running, at a worker that lets go of its name
once Redis is back (`runner`), and the job is run again. That Redis has been started again is seen
by its run id, even where every connection was made anew in silence.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from router.domain.errors import NotDurableError
from router.jobs import redis_scripts as scripts
from router.jobs.deliveries.redis import RedisDeliveries
from router.jobs.records import End, Job, Lane, Result, Spec, State, answer_bytes
from router.jobs.redis_link import RedisLink
from router.jobs.store import GIVEN_UP, NO_LIMIT, Document, too_many_bytes, too_many_jobs

_PAGE = 100


class RedisStore:
    """The store of gateways that share a Redis (a `JobStore`)."""

    def __init__(self, url: str, namespace: str) -> None:
        self._prefix = f"{{{namespace}}}:jobs"
        self._link = RedisLink(url, self._prefix)
        self._run_id = ""
        self.deliveries = RedisDeliveries(self._link.run)

    async def open(self) -> None:
        """Nothing is needed: connections are made when they are used."""

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()

    async def add(
        self, jobs: Sequence[Job], most_open: int, most_bytes: int = NO_LIMIT
    ) -> list[Job]:
        """See `JobStore`. Raises NotDurableError and TooManyJobsError."""
        told: list[Any] = [most_open, most_bytes]
        for job in jobs:
            told += (job.id, job.lane, job.tenant, job.created_at, job.due_at, job.batch, job.line,
                     job.state, job.ended_at, _pack(job.spec), _pack(job.result),
                     job.held_bytes)  # fmt: skip
        new = await self._link.run(scripts.ADD, *told, durable=True)
        if new is None:
            raise too_many_jobs(most_open)
        if new == scripts.TOO_MANY_BYTES:
            raise too_many_bytes(most_bytes)
        kept = list[Job]()
        for job, is_new in zip(jobs, new, strict=True):
            found = job if is_new else await self.get(job.id)
            kept.append(found or job)
        return kept

    async def get(self, job_id: str) -> Job | None:
        """See `JobStore`."""
        row = await self._link.read("HMGET", f"{self._prefix}:job:{job_id}", *scripts.FIELDS)
        return _job(row) if row[0] is not None else None

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
        index = ":all" if tenant is None else f":tenant:{tenant}"
        index = index if batch is None else f":batch:{batch}"
        most = max(limit, _PAGE) if states else limit
        found = list[Job]()
        while len(found) < limit:
            rows = await self._link.run(scripts.LISTED, index, after, most)
            jobs = [_job(row) for row in rows]
            found += [
                job
                for job in jobs
                if (not states or job.state in states) and tenant in {None, job.tenant}
            ]
            if len(rows) < most:
                break
            after = jobs[-1].id
        return found[:limit]

    async def lanes(self) -> list[Lane]:
        """See `JobStore`."""
        rows = await self._link.run(scripts.LANES)
        return [Lane(name.decode(), int(waiting), float(due)) for name, waiting, due in rows]

    async def claim(self, lane: str, worker: str, most: int, now: float) -> list[Job]:
        """See `JobStore`."""
        return [_job(row) for row in await self._link.run(scripts.CLAIM, lane, worker, most, now)]

    async def end(self, worker: str, ends: Sequence[End]) -> list[bool]:
        """See `JobStore`."""
        told: list[Any] = [worker]
        for end in ends:
            told += (end.id, end.attempt, end.state, end.at, _pack(end.result), end.cost_usd,
                     answer_bytes(end.result))  # fmt: skip
        return [bool(one) for one in await self._link.run(scripts.END, *told)]

    async def put_back(
        self, worker: str, job_id: str, attempt: int, ready_at: float, *, counts: bool
    ) -> bool:
        """See `JobStore`."""
        after = attempt if counts else attempt - 1
        return bool(
            await self._link.run(scripts.PUT_BACK, worker, job_id, attempt, ready_at, after)
        )

    async def beat(self, worker: str, lease_s: float, now: float) -> None:
        """See `JobStore`. Redis's own clock measures the lease.

        Raises NotDurableError, too, once after Redis has been started again: what it had not
        written then is lost, and whoever works has to ask anew what is theirs.
        """
        del now
        await self._link.run(scripts.BEAT, worker, int(lease_s * 1e3))
        before, self._run_id = self._run_id, (await self._link.read("INFO", "server"))["run_id"]
        if before not in {"", self._run_id}:
            raise NotDurableError("the Redis of the jobs has been started again")

    async def recover(self, most_attempts: int, now: float) -> int:
        """See `JobStore`."""
        return int(await self._link.run(scripts.RECOVER, most_attempts, now, _pack(GIVEN_UP)))

    async def retire(self, worker: str) -> None:
        """See `JobStore`."""
        await self._link.run(scripts.RETIRE, worker)

    async def drop_open(
        self, state: State, now: float, *, job_id: str = "", batch: str = ""
    ) -> int:
        """See `JobStore`."""
        if job_id:
            return int(await self._link.run(scripts.DROP, state, now, job_id))
        dropped, after = 0, ""
        while jobs := await self.listed(None, batch=batch, after=after, limit=_PAGE):
            after = jobs[-1].id
            dropped += int(
                await self._link.run(scripts.DROP, state, now, *(job.id for job in jobs))
            )
        return dropped

    async def retry(self, job_id: str, due_at: float) -> bool:
        """See `JobStore`."""
        return bool(await self._link.run(scripts.RETRY, job_id, due_at, durable=True))

    async def counts(self, tenant: str | None = None) -> Mapping[State, int]:
        """See `JobStore`."""
        return await self._counted(":counts" if tenant is None else f":counts:{tenant}")

    async def batch_counts(self, batch: str) -> Mapping[State, int]:
        """See `JobStore`."""
        return await self._counted(f":lines:{batch}")

    async def sweep(self, before: float, most: int) -> list[Job]:
        """See `JobStore`."""
        return [_job(row) for row in await self._link.run(scripts.SWEEP, before, most)]

    async def put(self, kind: str, document: Document) -> bool:
        """See `JobStore`."""
        told = (kind, document.id, document.tenant, document.version, _pack_document(document))
        return bool(await self._link.run(scripts.PUT, *told, durable=True))

    async def read(self, kind: str, document_id: str) -> Document | None:
        """See `JobStore`."""
        packed = await self._link.read("HGET", f"{self._prefix}:docs:{kind}", document_id)
        return _document(document_id, packed) if packed is not None else None

    async def documents(
        self, kind: str, tenant: str | None, after: str = "", limit: int = 100
    ) -> list[Document]:
        """See `JobStore`."""
        key = f"{self._prefix}:docs:{kind}"
        index = f"{key}:ids" if tenant is None else f"{key}:of:{tenant}"
        until = f"({after}" if after else "+"
        ids = await self._link.read("ZREVRANGEBYLEX", index, until, "-", "LIMIT", 0, limit)
        packed = await self._link.read("HMGET", key, *ids) if ids else []
        return [
            _document(id_.decode(), one)
            for id_, one in zip(ids, packed, strict=True)
            if one is not None
        ]

    async def remove(self, kind: str, document_id: str) -> bool:
        """See `JobStore`."""
        document = await self.read(kind, document_id)
        if document is None:
            return False
        return bool(await self._link.run(scripts.REMOVE, kind, document_id, document.tenant))

    async def _counted(self, key: str) -> Mapping[State, int]:
        found = await self._link.read("HGETALL", self._prefix + key)
        return {State(name.decode()): int(count) for name, count in found.items() if int(count)}


def _pack(value: Spec | Result | None) -> bytes:
    return msgspec.msgpack.encode(value) if value is not None else b""


def _pack_document(document: Document) -> bytes:
    return msgspec.msgpack.encode((document.tenant, document.version, document.content))


def _document(document_id: str, packed: bytes) -> Document:
    tenant, version, content = msgspec.msgpack.decode(packed, type=tuple[str, int, bytes])
    return Document(document_id, tenant, version, content)


_SPEC = msgspec.msgpack.Decoder(Spec)
_RESULT = msgspec.msgpack.Decoder(Result)


def _job(row: Sequence[bytes]) -> Job:
    found = dict(zip(scripts.FIELDS, row, strict=True))
    text = {name: value.decode() for name, value in found.items() if name not in {"spec", "result"}}
    return Job(
        text["id"], text["lane"], text["tenant"], float(text["created"]), float(text["due"]),
        _SPEC.decode(found["spec"]), text["batch"], int(text["line"]), State(text["state"]),
        int(text["attempt"]), text["worker"], float(text["ended"]), float(text["cost"]),
        _RESULT.decode(found["result"]) if found["result"] else None,
    )  # fmt: skip
