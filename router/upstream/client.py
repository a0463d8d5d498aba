"""The HTTP/1.1 client of the gateway: one call to one address, one answer or one domain error.

Decides only whether a call is replayed after a stale connection. Never follows a redirect, reads
no proxy setting, keeps no cookie, and decodes no body.
"""

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from router.domain.clock import Clock
from router.domain.errors import AttemptError, ConnectFailedError, ResponseLostError
from router.domain.ports import Payload
from router.upstream.address import Address
from router.upstream.connection import Connection
from router.upstream.connection_pool import (
    CLOSED,
    AddressStats,
    ConnectionPool,
    Surroundings,
    UpstreamLimits,
    Waiter,
)
from router.upstream.deadlines import DeadlineWheel
from router.upstream.head import build_head
from router.upstream.response import BodyStream, Collector, UpstreamResponse
from router.upstream.upload import AnswerDuringUpload, Feeder


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an upstream.

    A body that is still to come has `body_bytes`, and is sent as it comes; `deadline` ends its
    call however slow its client is. `target` is path and query as they go on the wire; `headers`
    are end-to-end only; `head` is all of them as bytes, where whoever calls has made them.
    `is_idempotent` says that running it twice does no harm.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    body: Payload = b""
    body_bytes: int = 0
    deadline: float | None = None
    connect_timeout_s: float | None = None
    is_idempotent: bool = False
    head: bytes = b""


class UpstreamClient:
    """Sends calls over reused connections; one per gateway process.

    Constructing it opens nothing. Belongs to the event loop that first uses it.
    """

    def __init__(self, *, clock: Clock, limits: UpstreamLimits = UpstreamLimits()) -> None:  # noqa: B008 - frozen
        self._clock = clock
        self._limits = limits
        self.wheel = DeadlineWheel(clock)
        self._shared = Surroundings(clock, limits, self.wheel, self._default_tls)
        self._pools: dict[Address, ConnectionPool] = {}
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False
        self._all_gone = asyncio.Event()

    async def send(self, address: Address, call: Call, *, timeout_s: float) -> UpstreamResponse:
        """Send `call` and return its answer: complete if it is small, else head and stream.

        `timeout_s` covers connecting, the head, and the body as far as it is collected; a stream
        may stand still for `stream_idle_s`. Cancelling this closes the connection. Raises
        InvalidRequestError, ConnectFailedError, UpstreamRejectedError (too many connections),
        ResponseLostError, UpstreamTimeoutError or UpstreamBrokenError.
        """
        deadline = self._clock() + timeout_s
        head = _head(address, call)
        connection = self._pool(address).take() or await self._connect(address, call, deadline)
        started = self._clock()
        try:
            return await self._exchange(connection, head, call, deadline)
        except ResponseLostError:
            took_s = self._clock() - started
            no_attempt = connection.was_no_attempt(took_s, is_idempotent=call.is_idempotent)
            if not (no_attempt and _is_whole(call.body)):
                raise
        # A fresh connection cannot have been closed before, so one replay is all it takes.
        connection = await self._connect(address, call, deadline)
        return await self._exchange(connection, head, call, deadline)

    def connection(
        self, address: Address, waiter: Waiter, timeout_s: float | None = None
    ) -> Connection | None:
        """An open idle connection for the caller to start an exchange on.

        None if there is none: then `waiter` gets one once it is open, or once another comes free.
        One may take `timeout_s` to open, None for the usual time.
        """
        if self._is_closed:
            error = ConnectFailedError(CLOSED)
            asyncio.get_running_loop().call_soon(waiter.on_not_connected, error)
            return None
        pool = self._pool(address)
        connection = pool.take()
        if connection is None:
            pool.wait(waiter, self._connect_timeout_s(timeout_s))
        return connection

    def taken_over(self, connection: Connection) -> Coroutine[Any, Any, UpstreamResponse]:
        """The answer of an exchange that somebody else began, as `send` would return it.

        It must not have given anything yet. A stale connection is not made up for.
        """
        result = asyncio.get_running_loop().create_future()
        collector = Collector(connection, self._limits.buffer_bytes, self._make_stream, result)
        connection.redirect(collector)
        return _answer(collector)

    def forget(self, address: Address, waiter: Waiter) -> None:
        """The waiter does not need a connection any more."""
        pool = self._pools.get(address)
        if pool is not None:
            pool.forget(waiter)

    @property
    def stream_idle_s(self) -> float:
        """How long an answer may stand still."""
        return self._limits.stream_idle_s

    def abort(self, address: Address) -> None:
        """Fail every exchange with an address that is known to be gone, so that none waits for it.

        Later calls open fresh connections.
        """
        pool = self._pools.get(address)
        if pool is not None:
            pool.close()
            self._drop_pool(pool)

    async def close(self) -> None:
        """Close every connection; exchanges in flight fail, later calls are refused."""
        self._is_closed = True
        for pool in list(self._pools.values()):
            pool.close()
        if self._pools:
            await self._all_gone.wait()  # sockets close on the loop's next turns
        self.wheel.close()

    def stats(self) -> dict[Address, AddressStats]:
        """Open and idle connections of every address that has any."""
        return {address: pool.stats for address, pool in self._pools.items()}

    async def _exchange(
        self, connection: Connection, head: bytes, call: Call, deadline: float
    ) -> UpstreamResponse:
        collector = Collector(
            connection,
            self._limits.buffer_bytes,
            self._make_stream,
            asyncio.get_running_loop().create_future(),
        )
        is_head = call.method == "HEAD"
        if not isinstance(call.body, bytes):
            size = call.body_bytes
            connection.start(head, b"", collector, call.deadline, is_head=is_head, to_come=size)
            left_s = deadline - self._clock()
            feeder = Feeder(connection, call.body, self._clock, left_s, call.deadline)
            return await _answer_to_upload(collector, feeder)
        connection.start(head, call.body, collector, deadline, is_head=is_head)
        return await _answer(collector)

    async def _connect(self, address: Address, call: Call, deadline: float) -> Connection:
        timeout_s = self._connect_timeout_s(call.connect_timeout_s)
        return await self._pool(address).connect(min(timeout_s, deadline - self._clock()))

    def _connect_timeout_s(self, asked_s: float | None) -> float:
        return self._limits.connect_timeout_s if asked_s is None else asked_s

    def _pool(self, address: Address) -> ConnectionPool:
        pool = self._pools.get(address)
        if pool is None:
            if self._is_closed:
                raise ConnectFailedError(CLOSED)
            pool = ConnectionPool(address, self._shared, self._drop_pool)
            self._pools[address] = pool
            self._all_gone.clear()
        return pool

    def _drop_pool(self, pool: ConnectionPool) -> None:
        # One that was aborted is gone from here already, and another may have taken its place.
        if self._pools.get(pool.address) is pool:
            del self._pools[pool.address]
        if not self._pools:
            self._all_gone.set()

    def _make_stream(self, connection: Connection) -> BodyStream:
        return BodyStream(connection, self.wheel, self._clock, self._limits.stream_idle_s)

    async def _default_tls(self) -> ssl.SSLContext:
        """Return the shared TLS context; reading the system's authorities takes a thread."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls


def _head(address: Address, call: Call) -> bytes:
    if call.head:
        return call.head
    size = len(call.body) if isinstance(call.body, bytes) else call.body_bytes
    return build_head(call.method, call.target, address.host_header, call.headers, size)


def _is_whole(body: Payload) -> bool:
    """Whether a body can be sent again: all of it is here, or none of it has been taken."""
    return isinstance(body, bytes) or body.is_untouched


async def _answer(collector: Collector) -> UpstreamResponse:
    try:
        return await collector.result
    except asyncio.CancelledError:
        collector.cancel()
        raise


async def _answer_to_upload(collector: Collector, feeder: Feeder) -> UpstreamResponse:
    """The answer, which may come before all is sent; what is then to come is not sent any more.

    Only an answer that is itself a stream lets the request go on beside it.
    """
    response = None
    try:
        response = await _answer(collector)
    except AttemptError as error:
        if feeder.error is not None:
            raise feeder.error from error
        raise
    finally:
        if response is None or response.rest is None:
            await feeder.stop()
    if response.rest is not None:
        response.rest = AnswerDuringUpload(response.rest, feeder)
    return response
