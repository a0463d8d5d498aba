"""The connections to one address: how many, which one next, and for how long they stay idle.

Decides reuse (the most recently used first, so that the others can go) and opens sockets. Never
sends a request and never retries.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from router.domain.clock import Clock
from router.domain.errors import AttemptError, ConnectFailedError, UpstreamRejectedError
from router.upstream.address import Address
from router.upstream.connection import Connection
from router.upstream.deadlines import DeadlineWheel

_TLS_SHUTDOWN_S = 1.0
CLOSED = "the upstream client is closed"


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Bounds of the client; counts are per address.

    `buffer_bytes` is how much of an answer is collected before the rest is given out as a stream.
    `stream_idle_s` is how long a stream may stand still, whoever is slow, before it is given up.
    """

    max_connections_per_address: int = 1024
    # As many as may be open: a connection that is opened anew costs more than several requests.
    max_idle: int = 1024
    idle_s: float = 300.0
    connect_timeout_s: float = 1.0
    max_head_bytes: int = 64 * 1024
    buffer_bytes: int = 1024 * 1024
    stream_idle_s: float = 300.0


class AddressStats(NamedTuple):
    """How many connections one address has: all of them, and those waiting for work."""

    open: int
    idle: int


class Surroundings(NamedTuple):
    """What all pools of a client share."""

    clock: Clock
    limits: UpstreamLimits
    wheel: DeadlineWheel
    default_tls: Callable[[], Awaitable[ssl.SSLContext]]


class Waiter(Protocol):
    """Who waits for a connection. It gets one, or learns why there is none, exactly once."""

    def on_connected(self, connection: Connection) -> None:
        """One is open and idle, for the waiter to start an exchange on now."""
        ...

    def on_not_connected(self, error: AttemptError) -> None:
        """There will be none."""
        ...


class ConnectionPool:
    """All connections to `address`; `on_empty` is called when the last one has gone."""

    __slots__ = (
        "_dialling", "_dials", "_idle", "_is_closed", "_on_empty", "_open", "_shared",
        "_sweep_armed", "_waiters", "address",
    )  # fmt: skip

    def __init__(
        self, address: Address, shared: Surroundings, on_empty: Callable[["ConnectionPool"], None]
    ) -> None:
        self.address = address
        self._shared = shared
        self._on_empty = on_empty
        self._open: set[Connection] = set()
        # The end of the list is the most recently used, so its start has been idle longest.
        self._idle: list[Connection] = []
        self._dialling: set[asyncio.Timeout] = set()
        # Each waiter has a dial of its own under way, so that none is forgotten; but it takes the
        # first connection that is there, its own or one that has come free.
        self._waiters: dict[Waiter, None] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._sweep_armed = False
        self._is_closed = False

    @property
    def stats(self) -> AddressStats:
        """Open and idle connections now; one being opened counts as open."""
        return AddressStats(len(self._open), len(self._idle))

    def take(self) -> Connection | None:
        """Return an idle connection that is still open, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self, timeout_s: float) -> Connection:
        """Open a connection within `timeout_s`.

        Raises UpstreamRejectedError when the address has as many as it may have, and
        ConnectFailedError when it cannot be opened.
        """
        shared = self._shared
        if self._is_closed:
            raise ConnectFailedError(CLOSED)
        if self._is_full:
            raise UpstreamRejectedError("every connection to the upstream is in use")
        loop = asyncio.get_running_loop()
        connection = Connection(self, shared.wheel, loop, shared.limits.max_head_bytes)
        self._open.add(connection)
        try:
            await self._dial(loop, connection, timeout_s)
        except BaseException as error:
            connection.abort()
            self._forget(connection)
            if isinstance(error, OSError):  # TimeoutError and every ssl error are OSErrors
                raise ConnectFailedError(self._connect_message(error)) from error
            raise
        return connection

    def wait(self, waiter: Waiter, timeout_s: float) -> None:
        """Give `waiter` the next connection there is; one is opened for it, within that time."""
        self._waiters[waiter] = None
        task = asyncio.get_running_loop().create_task(self._open_for_waiter(timeout_s))
        self._dials.add(task)
        task.add_done_callback(self._dialled)

    def forget(self, waiter: Waiter) -> None:
        """The waiter needs none any more; what is opened for it is for others."""
        self._waiters.pop(waiter, None)

    def expire(self) -> None:
        """Close what has been idle for too long (called by the wheel)."""
        self._sweep_armed = False
        limits, now = self._shared.limits, self._shared.clock()
        expired = 0
        while expired < len(self._idle) and now - self._idle[expired].idle_since >= limits.idle_s:
            self._idle[expired].abort()
            expired += 1
        del self._idle[:expired]
        self._arm_sweep()

    def close(self) -> None:
        """Close every connection, on the loop's next turns; exchanges in flight fail."""
        self._is_closed = True
        self._idle.clear()
        for dialling in self._dialling:
            dialling.reschedule(0)  # in the past: it times out now
        for connection in list(self._open):
            connection.abort()

    # -- what a connection reports

    def connection_idle(self, connection: Connection) -> None:
        """Keep a connection for reuse, or close it if enough are waiting."""
        if self._is_closed or len(self._idle) >= self._shared.limits.max_idle:
            connection.abort()
            return
        connection.idle_since = self._shared.clock()
        self._idle.append(connection)
        if self._waiters:  # not now: the answer that came over it is still being passed on
            asyncio.get_running_loop().call_soon(self._serve_waiters)
        if not self._sweep_armed:
            self._arm_sweep()

    def connection_closed(self, connection: Connection) -> None:
        """Forget a connection whose socket has closed."""
        if connection in self._idle:
            self._idle.remove(connection)
        self._forget(connection)

    # -- inside

    @property
    def _is_full(self) -> bool:
        return len(self._open) >= self._shared.limits.max_connections_per_address

    async def _open_for_waiter(self, timeout_s: float) -> None:
        try:
            connection = await self.connect(timeout_s)
        except (ConnectFailedError, UpstreamRejectedError) as error:
            if (waiter := self._next_waiter()) is not None:
                waiter.on_not_connected(error)
        else:
            self.connection_idle(connection)
            if self._is_closed and (waiter := self._next_waiter()) is not None:
                waiter.on_not_connected(ConnectFailedError(CLOSED))

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        self._leave_if_empty()

    def _serve_waiters(self) -> None:
        while self._waiters and (connection := self.take()) is not None:
            waiter = self._next_waiter()
            assert waiter is not None  # noqa: S101
            waiter.on_connected(connection)

    def _next_waiter(self) -> Waiter | None:
        if not self._waiters:
            return None
        waiter = next(iter(self._waiters))
        del self._waiters[waiter]
        return waiter

    def _forget(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._leave_if_empty()

    def _leave_if_empty(self) -> None:
        if not self._open and not self._dials:
            self._on_empty(self)

    def _arm_sweep(self) -> None:
        if not self._sweep_armed and self._idle:
            self._sweep_armed = True
            oldest = self._idle[0].idle_since
            self._shared.wheel.arm(oldest + self._shared.limits.idle_s, self)

    async def _dial(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, timeout_s: float
    ) -> None:
        async with asyncio.timeout(timeout_s) as dialling:
            self._dialling.add(dialling)
            try:
                await self._open_transport(loop, connection)
            finally:
                self._dialling.discard(dialling)

    async def _open_transport(
        self, loop: asyncio.AbstractEventLoop, connection: Connection
    ) -> None:
        address = self.address
        if address.unix_path is not None:
            await loop.create_unix_connection(lambda: connection, address.unix_path)
        elif not address.tls:
            await loop.create_connection(lambda: connection, address.host, address.port)
        else:
            await loop.create_connection(
                lambda: connection,
                address.host,
                address.port,
                ssl=address.ssl_context or await self._shared.default_tls(),
                server_hostname=address.server_name or address.host,
                ssl_shutdown_timeout=_TLS_SHUTDOWN_S,
            )

    def _connect_message(self, error: OSError) -> str:
        if self._is_closed:
            return CLOSED
        return f"the upstream could not be reached: {_connect_reason(error)}"


def _connect_reason(error: OSError) -> str:
    """Say what went wrong in words that name no address: clients may read them."""
    match error:
        case TimeoutError():
            return "it did not answer in time"
        case ssl.SSLCertVerificationError():
            return "its certificate could not be verified"
        case ssl.SSLError():
            return "the TLS handshake failed"
        case socket.gaierror():
            return "its name could not be resolved"
        case ConnectionRefusedError():
            return "the connection was refused"
        case _:
            return "the connection could not be opened"
