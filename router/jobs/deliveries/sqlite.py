"""Deliveries in the journal of the jobs: the same file, thread and transactions."""

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from router.jobs.deliveries.records import About, Delivery, Progress
from router.jobs.store import too_many_jobs

Do = Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]]
"""Has something done in the journal's next transaction; returns once that is on the disk."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL, about TEXT NOT NULL, url TEXT NOT NULL,
  host TEXT NOT NULL, created_at REAL NOT NULL, due_at REAL NOT NULL, next_at REAL NOT NULL,
  state TEXT NOT NULL, attempts INTEGER NOT NULL, begun_at REAL NOT NULL, ended_at REAL NOT NULL,
  cause TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (next_at, host) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS deliveries_of ON deliveries (host, next_at) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS deliveries_ended ON deliveries (ended_at) WHERE ended_at > 0;
CREATE TABLE IF NOT EXISTS delivery_counts (
  tenant TEXT, state TEXT, deliveries INTEGER NOT NULL, PRIMARY KEY (tenant, state)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS delivery_comes AFTER INSERT ON deliveries BEGIN
  INSERT INTO delivery_counts VALUES (new.tenant, new.state, 1)
    ON CONFLICT DO UPDATE SET deliveries = deliveries + 1;
END;
CREATE TRIGGER IF NOT EXISTS delivery_moves AFTER UPDATE OF state ON deliveries
WHEN new.state <> old.state BEGIN
  UPDATE delivery_counts SET deliveries = deliveries - 1
    WHERE tenant = old.tenant AND state = old.state;
  INSERT INTO delivery_counts VALUES (new.tenant, new.state, 1)
    ON CONFLICT DO UPDATE SET deliveries = deliveries + 1;
END;
CREATE TRIGGER IF NOT EXISTS delivery_goes AFTER DELETE ON deliveries BEGIN
  UPDATE delivery_counts SET deliveries = deliveries - 1
    WHERE tenant = old.tenant AND state = old.state;
END;
"""
_COLUMNS = (
    "id, tenant, about, url, host, created_at, due_at, next_at, state, attempts, begun_at,"
    " ended_at, cause, version"
)
_ADD = f"INSERT INTO deliveries ({_COLUMNS}) VALUES ({', '.join('?' * 14)}) ON CONFLICT DO NOTHING"
_WAITING = "SELECT deliveries FROM delivery_counts WHERE tenant = ? AND state = 'waiting'"
_GET = f"SELECT {_COLUMNS} FROM deliveries WHERE id = ?"
_MOST_HOSTS = 1000
_HOSTS = (
    "SELECT host FROM deliveries WHERE state = 'waiting' AND next_at <= ?"
    f" GROUP BY host ORDER BY min(next_at) LIMIT {_MOST_HOSTS}"
)
_CLAIM = (
    "UPDATE deliveries SET next_at = :until, version = version + 1 WHERE id IN ("
    "SELECT id FROM deliveries WHERE host = :host AND state = 'waiting' AND next_at <= :now"
    f" ORDER BY next_at LIMIT :most) RETURNING {_COLUMNS}"
)
_SETTLE = (
    "UPDATE deliveries SET state = ?, attempts = ?, begun_at = ?, next_at = ?, ended_at = ?,"
    " cause = ?, version = version + 1 WHERE id = ? AND version = ? AND state = 'waiting'"
)
_WAKE = (
    "UPDATE deliveries SET next_at = ?, version = version + 1"
    " WHERE id = ? AND state = 'waiting' AND attempts = 0"
)
_REMOVE = "DELETE FROM deliveries WHERE id = ?"
_COUNTS = (
    "SELECT state, sum(deliveries) FROM delivery_counts GROUP BY state HAVING sum(deliveries) > 0"
)
_SWEEP = (
    "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries"
    " WHERE ended_at > 0 AND ended_at < ? LIMIT ?)"
)


class SqliteDeliveries:
    """The deliveries of gateways without a Redis for their jobs (a `DeliveryStore`)."""

    def __init__(self, do: Do) -> None:
        self._do = do

    async def add(self, delivery: Delivery, most_waiting: int) -> bool:
        """See `DeliveryStore`. Raises NotDurableError and TooManyJobsError."""

        def work(one: sqlite3.Connection) -> bool:
            if not one.execute(_ADD, _row(delivery)).rowcount:
                return False
            (count,) = one.execute(_WAITING, (delivery.tenant,)).fetchone()
            if count > most_waiting:
                raise too_many_jobs(most_waiting)
            return True

        return bool(await self._do(work))

    async def get(self, delivery_id: str) -> Delivery | None:
        """See `DeliveryStore`."""
        row = await self._do(lambda one: one.execute(_GET, (delivery_id,)).fetchone())
        return _delivery(row) if row is not None else None

    async def hosts(self, now: float) -> list[str]:
        """See `DeliveryStore`."""
        return await self._do(lambda one: [host for (host,) in one.execute(_HOSTS, (now,))])  # type: ignore[no-any-return]

    async def claim(self, host: str, now: float, until: float, most: int) -> list[Delivery]:
        """See `DeliveryStore`."""
        values = {"host": host, "now": now, "until": until, "most": most}
        rows = await self._do(lambda one: one.execute(_CLAIM, values).fetchall())
        return [_delivery(row) for row in rows]

    async def settle(self, delivery: Delivery) -> bool:
        """See `DeliveryStore`."""
        values = (delivery.state, delivery.attempts, delivery.begun_at, delivery.next_at,
                  delivery.ended_at, delivery.cause, delivery.id, delivery.version)  # fmt: skip
        return bool(await self._do(lambda one: one.execute(_SETTLE, values).rowcount))

    async def wake(self, ids: Sequence[str], now: float) -> None:
        """See `DeliveryStore`."""
        values = [(now, one) for one in ids]
        await self._do(lambda one: one.executemany(_WAKE, values))

    async def remove(self, delivery_id: str) -> None:
        """See `DeliveryStore`."""
        await self._do(lambda one: one.execute(_REMOVE, (delivery_id,)))

    async def counts(self) -> Mapping[Progress, int]:
        """See `DeliveryStore`."""
        rows = await self._do(lambda one: one.execute(_COUNTS).fetchall())
        return {Progress(state): count for state, count in rows}

    async def sweep(self, before: float, most: int) -> int:
        """See `DeliveryStore`."""
        return int(await self._do(lambda one: one.execute(_SWEEP, (before, most)).rowcount))


def _row(delivery: Delivery) -> tuple[Any, ...]:
    return (
        delivery.id, delivery.tenant, delivery.about, delivery.url, delivery.host,
        delivery.created_at, delivery.due_at, delivery.next_at, delivery.state, delivery.attempts,
        delivery.begun_at, delivery.ended_at, delivery.cause, delivery.version,
    )  # fmt: skip


def _delivery(row: tuple[Any, ...]) -> Delivery:
    id_, tenant, about, url, host, created, due, next_at, state, *others = row
    return Delivery(
        id_, tenant, About(about), url, host, created, due, next_at, Progress(state), *others
    )
