"""Exchanges signals with the other gateways through Redis, in the background only.

Each gateway owns one hash with an expiry; a sorted set scored by Redis's own clock says who is
there; one key with an expiry says who leads. Decides who leads and what of the others is believed.
It never runs on the request path: readers look at `SharedState.snapshot`, a plain attribute.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from router.domain.clock import Clock, Sleep
from router.domain.events import EventKind, told
from router.signals.records import (
    FIELDS,
    MAX_FIELD_BYTES,
    MAX_ID_BYTES,
    PeerRecord,
    Publication,
    RecordError,
    decode,
    encode,
    gateway_id,
)
from router.signals.redis_client import redis_client
from router.signals.snapshot import CanaryWord, FleetSnapshot, SharedEndpoint

MAX_PEERS = 64
MAX_READ_BYTES = 16 << 20
"""What the records of all peers may have together, at every exchange; the rest is left out."""
MAX_BACKOFF_S = 1.0
# Connecting, logging in and two pipelines: each step may take the operation timeout, and no more.
OPERATIONS_PER_FLUSH = 5

# KEYS: members. ARGV: own id, expiry in ms, most ids to return, most bytes of one; a longer one is
# returned empty. Redis's clock dates the members,
# because the gateways' clocks may disagree; entries from its future (a clock set back) go too.
_JOIN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - expiry))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], expiry)
local ids = redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)
for i, id in ipairs(ids) do
  if #id > tonumber(ARGV[4]) then ids[i] = '' end
end
return ids
"""
# KEYS: records. ARGV: most bytes of a field, most bytes in all, names of the fields. Looks at sizes
# before it reads, so that whatever somebody else has written there never comes over the wire.
# Returns for each record its values, or the reason why it is not read: empty if it is gone.
_READ = """
local most, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local names = {unpack(ARGV, 3)}
local function judged(key)
  local bytes = 0
  for _, name in ipairs(names) do
    local size = redis.pcall('HSTRLEN', key, name)
    if type(size) ~= 'number' then return 'not a hash' end
    if size > most then return string.format('%s: %.0f bytes, at most %.0f', name, size, most) end
    bytes = bytes + size
  end
  if bytes == 0 then return redis.call('EXISTS', key) == 1 and 'without its fields' or '' end
  if bytes > left then return string.format('%.0f bytes, and only %.0f left', bytes, left) end
  left = left - bytes
  return redis.call('HMGET', key, unpack(names))
end
local found = {}
for i, key in ipairs(KEYS) do found[i] = judged(key) end
return found
"""
# KEYS: leader. ARGV: own id, lease in ms. Only the holder extends the lease.
_LEAD = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
# KEYS: leader. ARGV: own id.
_RESIGN = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

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


class SharedState:
    """Keeps `snapshot` current while `run` runs; nothing else of it is for the request path.

    `flushes_ok`, `flushes_failed` and `dropped_records` only grow; `last_ok_at` is monotonic
    seconds, None before the first success. Raises ValueError for a URL that is not one of Redis.
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
        self._redis = redis_client(config.redis_url, config.operation_timeout_s, 2)
        self._members_key = f"{config.namespace}:gateways"
        self._leader_key = f"{config.namespace}:leader"
        self._degraded = False
        # What each peer has said last, and what was made of it: most say the same for long.
        self._heard: dict[str, tuple[list[bytes | None], PeerRecord]] = {}
        self.snapshot = FleetSnapshot({}, {}, {}, is_leader=False, taken_at=clock())
        self.flushes_ok = 0
        self.flushes_failed = 0
        self.dropped_records = 0
        self.last_ok_at: float | None = None

    async def run(self) -> None:
        """Exchange signals until cancelled, then leave, so that another can lead at once.

        Failures are counted, logged once, and tried again after at most MAX_BACKOFF_S.
        """
        self.snapshot = replace(self.snapshot, taken_at=self._clock())
        failures = 0
        try:
            while True:
                failures = 0 if await self._flush() else failures + 1
                _raise_if_cancelled()
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
        members, leads = await self._announce()
        peers = await self._read_peers(members)
        return FleetSnapshot(
            peers={peer: record.totals for peer, record in peers.items()},
            endpoints=_merged_endpoints(peers.values()),
            peer_in_flight=_summed_in_flight(peers.values()),
            is_leader=leads,
            taken_at=started_at,
            taken={peer: record.taken for peer, record in peers.items()},
            canaries=_gathered_words(peers.values()),
        )

    async def _announce(self) -> tuple[Sequence[bytes], bool]:
        """Write the own record, and learn who is there and whether this gateway leads."""
        config, own_id = self._config, self._config.gateway_id
        lease_ms = round(config.staleness_s * 1000)
        # Longer than the longest pause between two tries, or a short outage would look like an end.
        expiry_ms = lease_ms + round(MAX_BACKOFF_S * 1000)
        own_key = self._record_key(own_id)
        fields: list[str | bytes] = []
        for name, value in encode(self._publish()).items():
            fields += (name, value)
        commands: list[_Command] = [
            ("DEL", own_key),
            ("HSET", own_key, *fields),
            ("PEXPIRE", own_key, expiry_ms),
            ("EVAL", _JOIN, 1, self._members_key, own_id, expiry_ms, MAX_PEERS + 1, MAX_ID_BYTES),
            ("EVAL", _LEAD, 1, self._leader_key, own_id, lease_ms),
        ]
        async with self._redis.pipeline(transaction=True) as pipe:
            answers = await _queued(pipe, commands).execute()
        return answers[-2], answers[-1] == 1

    async def _read_peers(self, members: Sequence[bytes]) -> dict[str, PeerRecord]:
        peer_ids = self._peer_ids(members)
        if not peer_ids:
            return {}
        keys = [self._record_key(peer_id) for peer_id in peer_ids]
        bounds = (MAX_FIELD_BYTES, MAX_READ_BYTES, *FIELDS)
        commands: list[_Command] = [("EVAL", _READ, len(keys), *keys, *bounds)]
        async with self._redis.pipeline(transaction=False) as pipe:
            (answers,) = await _queued(pipe, commands).execute()
        peers = {}
        self._heard = {peer: said for peer, said in self._heard.items() if peer in peer_ids}
        for peer_id, answer in zip(peer_ids, answers, strict=True):
            record = self._believed(peer_id, answer)
            if record is not None:
                peers[peer_id] = record
            await asyncio.sleep(0)  # requests have their turn between two records
        return peers

    def _peer_ids(self, members: Sequence[bytes]) -> list[str]:
        ids = []
        for member in members:
            try:
                ids.append(gateway_id(member))
            except RecordError as error:
                self._drop("a member", error)
        return sorted(peer for peer in ids if peer != self._config.gateway_id)

    def _believed(self, peer_id: str, answer: list[bytes | None] | bytes) -> PeerRecord | None:
        if not answer:  # it left, or its record expired, after we read the members
            return None
        if isinstance(answer, bytes):
            self._drop(peer_id, RecordError(f"not read: {answer.decode()}"))
            return None
        heard = self._heard.get(peer_id)
        if heard is not None and heard[0] == answer:
            return heard[1]
        values = zip(FIELDS, answer, strict=True)
        fields = {name.encode(): value for name, value in values if value is not None}
        try:
            record = decode(peer_id, fields)
        except RecordError as error:
            self._drop(peer_id, error)
            return None
        self._heard[peer_id] = answer, record
        return record

    def _drop(self, owner: str, error: Exception) -> None:
        self.dropped_records += 1
        _log.debug("shared state: record of %s dropped: %s", owner, error)

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
            ("EVAL", _RESIGN, 1, self._leader_key, own_id),
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
        return f"{self._config.namespace}:gateway:{owner}"

    @property
    def _budget_s(self) -> float:
        return self._config.operation_timeout_s * OPERATIONS_PER_FLUSH


def _raise_if_cancelled() -> None:
    """Make up for a cancellation that the client has swallowed.

    It writes in `asyncio.wait_for`, which before Python 3.12 forgets one that comes in the very
    turn in which it has its result. The loop would never end, nor the gateway that waits for it.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _queued(pipe: Pipeline, commands: Iterable[_Command]) -> Pipeline:
    for command in commands:
        pipe.pipeline_execute_command(*command)  # type: ignore[no-untyped-call]
    return pipe


def _merged_endpoints(
    records: Iterable[PeerRecord],
) -> dict[str, tuple[SharedEndpoint, ...]]:
    merged: dict[str, list[SharedEndpoint]] = {}
    for model, replicas in chain.from_iterable(found.endpoints.items() for found in records):
        merged.setdefault(model, []).extend(replicas)
    return {model: tuple(replicas) for model, replicas in merged.items()}


def _gathered_words(records: Iterable[PeerRecord]) -> dict[str, tuple[CanaryWord, ...]]:
    words: dict[str, list[CanaryWord]] = {}
    for rule, word in chain.from_iterable(found.canaries.items() for found in records):
        words.setdefault(rule, []).append(word)
    return {rule: tuple(said) for rule, said in words.items()}


def _summed_in_flight(records: Iterable[PeerRecord]) -> dict[str, int]:
    summed: dict[str, int] = {}
    for endpoint_id, count in chain.from_iterable(found.in_flight.items() for found in records):
        summed[endpoint_id] = summed.get(endpoint_id, 0) + count
    return summed
