"""Exchanges signals with the other gateways through Redis, in the background only.

Each gateway owns one hash with an expiry; a sorted set scored by Redis's own clock says who is
there; one key with an expiry says who leads. Decides who leads and what of the others is believed.
It never runs on the request path: readers look at `SharedState.snapshot`, a plain attribute.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from router.domain.clock import Clock, Sleep
from router.domain.events import EventKind, told
from router.domain.redis_url import parse_redis_url
from router.signals.own_record import OwnRecord, Told
from router.signals.peers import Answer, Peers
from router.signals.records import (
    FIELDS,
    KEPT_CHANGES,
    MAX_FIELD_BYTES,
    MAX_ID_BYTES,
    Publication,
    RecordError,
    gateway_id,
)
from router.signals.redis_client import raise_if_cancelled, redis_client
from router.signals.scripts import JOIN, LEAD, READ, RESIGN, TELL, Script
from router.signals.snapshot import FleetSnapshot

MAX_PEERS = 64
MAX_READ_BYTES = 16 << 20
"""What the records of all peers may have together; the rest is left out."""
MAX_BACKOFF_S = 1.0
# Connecting, logging in and two pipelines: each step may take the operation timeout, and no more.
OPERATIONS_PER_FLUSH = 5

_FIRST_NUMBERS: Final = 1 << 50
_SCRIPTS: Final = (JOIN, TELL, LEAD, READ)

_Command = tuple[str | bytes | int, ...]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedStateConfig:
    """How to reach the shared state, and how patiently.

    `gateway_id` must be unique among the gateways of a `namespace`. `operation_timeout_s` bounds
    one exchange with Redis. A gateway that has been silent for `staleness_s` acts alone, and its
    lease as the leader ends.
    """

    redis_url: str = field(repr=False)  # may hold a password
    namespace: str
    gateway_id: str
    flush_interval_s: float = 0.1
    operation_timeout_s: float = 0.1
    staleness_s: float = 3.0

    @property
    def prefix(self) -> str:
        """What every key begins with: the namespace, as one server of a cluster has all of it."""
        return parse_redis_url(self.redis_url).namespace(self.namespace)


class SharedState:
    """Keeps `snapshot` current while `run` runs; nothing else of it is for the request path.

    `publish` returns what is new since it was called last. `flushes_ok`, `flushes_failed` and
    `dropped_records` only grow; `last_ok_at` is monotonic seconds, None before the first success.
    Raises ValueError for a URL that is not one of Redis.
    """

    def __init__(
        self,
        config: SharedStateConfig,
        publish: Callable[[], Publication],
        clock: Clock,
        sleep: Sleep,
    ) -> None:
        self._config = config
        self._publish = publish
        self._clock = clock
        self._sleep = sleep
        prefix = self._prefix = config.prefix
        self._redis = redis_client(config.redis_url, prefix, config.operation_timeout_s, 2)
        self._members_key = f"{prefix}:gateways"
        self._leader_key = f"{prefix}:leader"
        self._degraded = False
        self._own = OwnRecord(secrets.randbelow(_FIRST_NUMBERS))
        self._peers = Peers()
        self._are_scripts_loaded = False
        self.snapshot = FleetSnapshot({}, {}, {}, is_leader=False, taken_at=clock())
        self.flushes_ok = 0
        self.flushes_failed = 0
        self.last_ok_at: float | None = None

    @property
    def dropped_records(self) -> int:
        """What others have written, and was not believed."""
        return self._peers.dropped

    async def run(self) -> None:
        """Exchange signals until cancelled, then leave, so that another can lead at once.

        Failures are counted, logged once, and tried again after at most MAX_BACKOFF_S.
        """
        self.snapshot = replace(self.snapshot, taken_at=self._clock())
        failures = 0
        try:
            while True:
                failures = 0 if await self._flush() else failures + 1
                raise_if_cancelled()
                self._act_alone_if_stale()
                await self._sleep(self._pause_s(failures))
                self._act_alone_if_stale()
        finally:
            await self._leave()

    async def _flush(self) -> bool:
        """One exchange, all of it within its budget. Returns whether it worked."""
        started_at = self._clock()
        try:
            async with asyncio.timeout(self._budget_s):
                self.snapshot = await self._exchange(started_at)
        except Exception as error:  # noqa: BLE001 - root of a task that must not end
            self._failed(error)
            return False
        self.flushes_ok += 1
        self.last_ok_at = started_at
        if self._degraded:
            self._degraded = False
            facts = told(EventKind.SHARED_STATE, failed=self.flushes_failed)
            _log.info("shared state: reachable again", extra=facts)
        return True

    async def _exchange(self, started_at: float) -> FleetSnapshot:
        known = list(self.snapshot.peers)
        are_loaded, self._are_scripts_loaded = self._are_scripts_loaded, False
        news = self._own.take(self._publish())
        commands: list[_Command] = []
        if not are_loaded:
            commands += [("SCRIPT", "LOAD", found.text) for found in _SCRIPTS]
        commands += [*self._telling(news), *self._joining(), self._reading(known)]
        *_, was_told, members, leads, answers = await self._execute(commands)
        self._are_scripts_loaded = True
        if news.after is None or was_told == 1:
            self._own.written()
        else:
            self._own.lost()
        peers = self._peer_ids(members)
        await self._hear(known, answers)
        if new := [peer for peer in peers if peer not in known]:
            (answers,) = await self._execute([self._reading(new)])
            await self._hear(new, answers)
        self._peers.retain(peers)
        return self._peers.snapshot(is_leader=leads == 1, taken_at=started_at)

    async def _execute(self, commands: Iterable[_Command]) -> list[Any]:
        async with self._redis.pipeline(transaction=True) as pipe:
            return await _queued(pipe, commands).execute()

    def _telling(self, news: Told) -> list[_Command]:
        """Write what is new in the own record; the last answer is 1 if that was done."""
        key = self._record_key(self._config.gateway_id)
        if news.after is not None:
            bounds = (self._expiry_ms, KEPT_CHANGES, news.after, news.head)
            return [_called(TELL, [key], *bounds, *news.fields)]
        return [
            ("DEL", key),
            ("HSET", key, *news.fields),
            ("PEXPIRE", key, self._expiry_ms),
        ]

    def _joining(self) -> list[_Command]:
        """Learn who is there, and whether this gateway leads."""
        own_id, bounds = self._config.gateway_id, (MAX_PEERS + 1, MAX_ID_BYTES)
        return [
            _called(JOIN, [self._members_key], own_id, self._expiry_ms, *bounds),
            _called(LEAD, [self._leader_key], own_id, self._lease_ms),
        ]

    def _reading(self, peers: Sequence[str]) -> _Command:
        left = max(0, MAX_READ_BYTES - self._peers.held_bytes)
        bounds = (MAX_FIELD_BYTES, left, KEPT_CHANGES, len(FIELDS))
        known = [self._peers.known(peer) for peer in peers]
        return _called(READ, [self._record_key(peer) for peer in peers], *bounds, *FIELDS, *known)

    async def _hear(self, peers: Sequence[str], answers: Sequence[Answer]) -> None:
        for peer, answer in zip(peers, answers, strict=True):
            self._peers.hear(peer, answer)
            await asyncio.sleep(0)  # requests have their turn between two records

    def _peer_ids(self, members: Sequence[bytes]) -> list[str]:
        ids = []
        for member in members:
            try:
                ids.append(gateway_id(member))
            except RecordError as error:
                self._peers.drop("a member", error)
        return sorted(peer for peer in ids if peer != self._config.gateway_id)

    def _failed(self, error: Exception) -> None:
        self.flushes_failed += 1
        if not self._degraded:
            self._degraded = True
            is_bug = not isinstance(error, RedisError | OSError)
            name = type(error).__name__
            _log.warning(
                "shared state: not reached, %s: %s", name, error, exc_info=is_bug,
                extra=told(EventKind.SHARED_STATE, failed=self.flushes_failed),
            )  # fmt: skip

    def _act_alone_if_stale(self) -> None:
        """Lead when nothing was heard for too long; the endpoints last known stay in use."""
        snapshot = self.snapshot
        if not snapshot.is_leader and snapshot.stale(self._clock(), self._config.staleness_s):
            self.snapshot = replace(snapshot, is_leader=True)

    def _pause_s(self, failures: int) -> float:
        pause_s: float = min(
            self._config.flush_interval_s * 2.0 ** min(failures, 16), MAX_BACKOFF_S
        )
        until_stale_s = self.snapshot.taken_at + self._config.staleness_s - self._clock()
        # Wake up just past the moment of staleness, to act alone no later than promised.
        return min(pause_s, until_stale_s + 0.001) if until_stale_s > 0 else pause_s

    async def _leave(self) -> None:
        """Give up the lease and the record; a Redis that does not answer forgets them by itself."""
        own_id = self._config.gateway_id
        commands: list[_Command] = [
            ("EVAL", RESIGN.text, 1, self._leader_key, own_id),
            ("DEL", self._record_key(own_id)),
            ("ZREM", self._members_key, own_id),
        ]
        try:
            async with asyncio.timeout(self._budget_s), self._redis.pipeline() as pipe:
                await _queued(pipe, commands).execute()
        except Exception as error:  # noqa: BLE001 - what is left behind expires by itself
            _log.info("shared state: left without notice, %s: %s", type(error).__name__, error)
        finally:
            await self._redis.aclose()

    def _record_key(self, owner: str) -> str:
        return f"{self._prefix}:gateway:{owner}"

    @property
    def _lease_ms(self) -> int:
        return round(self._config.staleness_s * 1000)

    @property
    def _expiry_ms(self) -> int:
        # Longer than the longest pause between two tries, or a short outage would look like an end.
        return self._lease_ms + round(MAX_BACKOFF_S * 1000)

    @property
    def _budget_s(self) -> float:
        return self._config.operation_timeout_s * OPERATIONS_PER_FLUSH


def _called(script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> _Command:
    return ("EVALSHA", script.digest, len(keys), *keys, *arguments)


def _queued(pipe: Pipeline, commands: Iterable[_Command]) -> Pipeline:
    for command in commands:
        pipe.pipeline_execute_command(*command)  # type: ignore[no-untyped-call]
    return pipe
