"""Connections to Redis, as the whole gateway makes them: with deadlines, without a second try.

Sentinels and clusters are followed by whoever connects: a connection asks who has the keys before
it is opened, and is given up when that server says that it has them no longer. The gateway's keys
share one slot of a cluster, so one server has all of them, with transactions and scripts.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.maint_notifications import MaintNotificationsConfig

from router.domain.redis_url import RedisUrl, Topology, parse_redis_url

CLIENT_NAME = "hybrid-router"  # in the server's list of clients

_LOGIN = ("username", "password")
_ELSEWHERE = (MovedError, AskError, ClusterDownError)
"""What a cluster's node says when another one has the keys, or nobody."""


def redis_client(url: str, namespace: str, timeout_s: float, max_connections: int) -> Redis:
    """A client whose operations take so long at most. Raises ValueError for what is no URL.

    `namespace` is what the keys begin with: in a cluster, it says who has them.
    """
    found = parse_redis_url(url)
    own: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "client_name": CLIENT_NAME,
        "driver_info": None,  # the default reads package metadata from disk at every connect
    }
    if found.topology is Topology.SINGLE:
        # Its handshake may resolve the host's name on the event loop.
        off = MaintNotificationsConfig(enabled=False)
        return Redis.from_url(
            found.single, max_connections=max_connections, maint_notifications_config=off, **own
        )
    pool = _pool(found, namespace, {**parse_url(found.single), **own}, max_connections)
    return Redis.from_pool(pool)


def cancellations() -> int:
    """How often this task has been told to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def raise_if_cancelled(before: int = 0) -> None:
    """Make up for a cancellation that was swallowed since there were so many.

    The client writes in `asyncio.wait_for`, which before Python 3.12 forgets one that comes in the
    very turn in which it has its result. The loop would never end, nor the gateway that waits for
    it.
    """
    if cancellations() > before:
        raise asyncio.CancelledError


def _pool(
    found: RedisUrl, namespace: str, options: dict[str, Any], max_connections: int
) -> ConnectionPool:
    is_tls = options.pop("connection_class", Connection) is SSLConnection
    del options["host"]  # a connection learns it when it is opened
    several = {"max_connections": max_connections, "ssl": is_tls}
    if found.topology is Topology.CLUSTER:
        nodes = SlotOwner(found.hosts, key_slot(namespace.encode()), {**options, "ssl": is_tls})
        kind = _TlsSlotConnection if is_tls else _SlotConnection
        return _Following(namespace, nodes, connection_class=kind, **several, **options)  # type: ignore[no-untyped-call]
    asked = {name: value for name, value in options.items() if name not in _LOGIN and name != "db"}
    if found.sentinel_username:
        asked["username"] = found.sentinel_username
    if found.sentinel_password:
        asked["password"] = found.sentinel_password
    sentinels = _Sentinels(found.hosts, sentinel_kwargs={**asked, "ssl": is_tls})  # type: ignore[no-untyped-call]
    return _Following(found.service, sentinels, **several, **options)  # type: ignore[no-untyped-call]


class _Following(SentinelConnectionPool):
    """Connections to whom the sentinels, or the nodes of a cluster, name."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections; with all of them, those to who is asked."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for asked in self.sentinel_manager.sentinels:
                await asked.aclose()


class _Sentinels(Sentinel):
    """Sentinels of which one that answers nonsense does not hide the others."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the master. Raises RedisError."""
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
        except RedisError:
            # It passes over those that are silent only: another one is asked first next time.
            self.sentinels.append(self.sentinels.pop(0))
            raise
        return found


class _SlotConnection(SentinelManagedConnection):
    """A connection to a cluster's node, given up when another one has the keys."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  Redis's answers
        """As of any connection. Raises ConnectionError where the keys have moved."""
        try:
            return await super().read_response(*args, **kwargs)
        except _ELSEWHERE as error:
            await self.disconnect()
            raise RedisConnectionError("the cluster has the keys elsewhere") from error


class _TlsSlotConnection(_SlotConnection, SSLConnection):
    """The same over TLS."""


class SlotOwner:
    """Tells who has one slot of a cluster; stands where a pool expects a `Sentinel`.

    redis-py's own client of clusters learns all 16,384 slots, on the event loop, whenever it looks
    again: 10 ms in which no request is served.
    """

    def __init__(
        self, hosts: Sequence[tuple[str, int]], slot: int, options: Mapping[str, Any]
    ) -> None:
        self._slot = slot
        self.sentinels = [Redis(host=host, port=port, **options) for host, port in hosts]

    async def discover_master(self, _name: str) -> tuple[str, int]:
        """The node that has the slot. Raises ConnectionError where nobody says so."""
        failed: Exception | None = None
        for node in list(self.sentinels):
            try:
                ranges = await node.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            except RedisError as error:
                failed = error
                continue
            for first, last, (host, port, *_), *_ in ranges:
                if first <= self._slot <= last:
                    self._prefer(node)
                    # A node that is alone may not know what it is called.
                    return host.decode() or self._host_of(node), port
        raise RedisConnectionError("no node of the cluster says who has the keys") from failed

    @staticmethod
    def _host_of(node: Redis) -> str:
        return str(node.connection_pool.connection_kwargs["host"])

    def _prefer(self, node: Redis) -> None:
        """Ask first who has answered last."""
        self.sentinels.remove(node)
        self.sentinels.insert(0, node)
