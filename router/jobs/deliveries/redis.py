"""Deliveries in the Redis of the jobs. Each change is one script, and is whole.

Under the prefix of the jobs (KEYS[1], with a hash tag) there are

    :delivery:ID             hash: the delivery
    :deliveries:due:HOST     sorted set: the ids that wait, by when they are due
    :deliveries:hosts        sorted set: the hosts, by when the first of theirs is due
    :deliveries:ended        sorted set of ids by when they ended
    :deliveries:counts       hash: how many are in which state; :counts:T those of a tenant
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from router.jobs.deliveries.records import About, Delivery, Progress
from router.jobs.store import too_many_jobs

_FIELDS = ("id", "tenant", "about", "url", "host", "created_at", "due_at", "next_at", "state",
           "attempts", "begun_at", "ended_at", "cause", "version")  # fmt: skip
_MOST_HOSTS = 1000

_PRELUDE = f"""
local P = KEYS[1]
local FIELDS = {{{", ".join(f"'{name}'" for name in _FIELDS)}}}
local ALL = P .. ':deliveries'
local function key(id) return P .. ':delivery:' .. id end
local function row(id) return redis.call('HMGET', key(id), unpack(FIELDS)) end
local function count(tenant, state, by)
  redis.call('HINCRBY', ALL .. ':counts', state, by)
  redis.call('HINCRBY', ALL .. ':counts:' .. tenant, state, by)
end
local function look(host)
  local first = redis.call('ZRANGE', ALL .. ':due:' .. host, 0, 0, 'WITHSCORES')
  if first[1] then redis.call('ZADD', ALL .. ':hosts', first[2], host)
  else redis.call('ZREM', ALL .. ':hosts', host) end
end
local function due(id, host, at)
  redis.call('HSET', key(id), 'next_at', at)
  redis.call('HINCRBY', key(id), 'version', 1)
  redis.call('ZADD', ALL .. ':due:' .. host, at, id)
end
"""

# ARGV: most that wait, then the fields. Returns 1 if it is new, 0 if not, nothing if too many.
_ADD = f"""{_PRELUDE}
local id, tenant, host, next_at, state = ARGV[2], ARGV[3], ARGV[6], ARGV[9], ARGV[10]
if redis.call('EXISTS', key(id)) == 1 then return 0 end
local waiting = tonumber(redis.call('HGET', ALL .. ':counts:' .. tenant, 'waiting')) or 0
if waiting >= tonumber(ARGV[1]) then return false end
for at, name in ipairs(FIELDS) do redis.call('HSET', key(id), name, ARGV[at + 1]) end
redis.call('ZADD', ALL .. ':due:' .. host, next_at, id)
count(tenant, state, 1)
look(host)
return 1
"""

# ARGV: id.
_GET = f"""{_PRELUDE}
return row(ARGV[1])
"""

# ARGV: now.
_HOSTS = f"""{_PRELUDE}
return redis.call('ZRANGEBYSCORE', ALL .. ':hosts', '-inf', ARGV[1], 'LIMIT', 0, {_MOST_HOSTS})
"""

# ARGV: host, now, until, most.
_CLAIM = f"""{_PRELUDE}
local rows = {{}}
for _, id in ipairs(redis.call(
    'ZRANGEBYSCORE', ALL .. ':due:' .. ARGV[1], '-inf', ARGV[2], 'LIMIT', 0, ARGV[4])) do
  due(id, ARGV[1], ARGV[3])
  rows[#rows + 1] = row(id)
end
look(ARGV[1])
return rows
"""

# ARGV: id, version, state, attempts, begun at, next at, ended at, cause.
_SETTLE = f"""{_PRELUDE}
local id = ARGV[1]
local tenant, host, state, version =
  unpack(redis.call('HMGET', key(id), 'tenant', 'host', 'state', 'version'))
if version ~= ARGV[2] or state ~= 'waiting' then return 0 end
redis.call('HSET', key(id), 'state', ARGV[3], 'attempts', ARGV[4], 'begun_at', ARGV[5],
  'ended_at', ARGV[7], 'cause', ARGV[8])
due(id, host, ARGV[6])
if ARGV[3] ~= 'waiting' then
  count(tenant, state, -1)
  count(tenant, ARGV[3], 1)
  redis.call('ZREM', ALL .. ':due:' .. host, id)
  redis.call('ZADD', ALL .. ':ended', ARGV[7], id)
end
look(host)
return 1
"""

# ARGV: now, ids.
_WAKE = f"""{_PRELUDE}
for at = 2, #ARGV do
  local host, state, attempts =
    unpack(redis.call('HMGET', key(ARGV[at]), 'host', 'state', 'attempts'))
  if state == 'waiting' and attempts == '0' then
    due(ARGV[at], host, ARGV[1])
    look(host)
  end
end
return 1
"""

_FORGET = """
local function forget(id)
  local tenant, host, state = unpack(redis.call('HMGET', key(id), 'tenant', 'host', 'state'))
  if not tenant then return end
  redis.call('DEL', key(id))
  redis.call('ZREM', ALL .. ':due:' .. host, id)
  redis.call('ZREM', ALL .. ':ended', id)
  count(tenant, state, -1)
  look(host)
end
"""

# ARGV: id.
_REMOVE = f"""{_PRELUDE}{_FORGET}
forget(ARGV[1])
return 1
"""

_COUNTS = f"""{_PRELUDE}
return redis.call('HGETALL', ALL .. ':counts')
"""

# ARGV: before, most.
_SWEEP = f"""{_PRELUDE}{_FORGET}
local old = redis.call(
  'ZRANGEBYSCORE', ALL .. ':ended', '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(old) do forget(id) end
return #old
"""


class Run(Protocol):
    """Runs a script; if `durable`, returns once what it wrote is on Redis's disk."""

    def __call__(self, script: str, *told: Any, durable: bool = False) -> Awaitable[Any]:  # noqa: ANN401
        """The script's answer. Raises NotDurableError."""
        ...


class RedisDeliveries:
    """The deliveries of gateways that share a Redis (a `DeliveryStore`)."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def add(self, delivery: Delivery, most_waiting: int) -> bool:
        """See `DeliveryStore`. Raises NotDurableError and TooManyJobsError."""
        told = [getattr(delivery, name) for name in _FIELDS]
        is_new = await self._run(_ADD, most_waiting, *told, durable=True)
        if is_new is None:
            raise too_many_jobs(most_waiting)
        return bool(is_new)

    async def get(self, delivery_id: str) -> Delivery | None:
        """See `DeliveryStore`."""
        row = await self._run(_GET, delivery_id)
        return _delivery(row) if row[0] is not None else None

    async def hosts(self, now: float) -> list[str]:
        """See `DeliveryStore`."""
        return [host.decode() for host in await self._run(_HOSTS, now)]

    async def claim(self, host: str, now: float, until: float, most: int) -> list[Delivery]:
        """See `DeliveryStore`."""
        return [_delivery(row) for row in await self._run(_CLAIM, host, now, until, most)]

    async def settle(self, delivery: Delivery) -> bool:
        """See `DeliveryStore`."""
        told = (delivery.id, delivery.version, delivery.state, delivery.attempts,
                delivery.begun_at, delivery.next_at, delivery.ended_at, delivery.cause)  # fmt: skip
        return bool(await self._run(_SETTLE, *told))

    async def wake(self, ids: Sequence[str], now: float) -> None:
        """See `DeliveryStore`."""
        await self._run(_WAKE, now, *ids)

    async def remove(self, delivery_id: str) -> None:
        """See `DeliveryStore`."""
        await self._run(_REMOVE, delivery_id)

    async def counts(self) -> Mapping[Progress, int]:
        """See `DeliveryStore`."""
        flat = iter(await self._run(_COUNTS))
        pairs = zip(flat, flat, strict=True)
        return {Progress(name.decode()): int(count) for name, count in pairs if int(count)}

    async def sweep(self, before: float, most: int) -> int:
        """See `DeliveryStore`."""
        return int(await self._run(_SWEEP, before, most))


def _delivery(row: Sequence[bytes]) -> Delivery:
    (id_, tenant, about, url, host, created, due, next_at, state, attempts, begun, ended, cause,
     version) = (value.decode() for value in row)  # fmt: skip
    return Delivery(
        id_, tenant, About(about), url, host, float(created), float(due), float(next_at),
        Progress(state), int(attempts), float(begun), float(ended), cause, int(version),
    )  # fmt: skip
