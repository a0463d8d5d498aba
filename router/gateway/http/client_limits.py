"""How many clients may be connected, and how long each may keep the gateway waiting.

One coarse wheel for all connections, no timer each. Decides which connection is one too many and
which wait is over; never looks at what a client sends.
"""

import asyncio
from enum import StrEnum

from router.domain.clock import Clock
from router.domain.errors import TooManyConnectionsError
from router.gateway.body import BodyBudget
from router.gateway.protocols.oip import OIP
from router.gateway.relay import error_bytes
from router.gateway.responses import error_answer
from router.runtime import RuntimeRef
from router.upstream.deadlines import DeadlineWheel

TICK_S = 0.25
"""How coarse the wheel is; a wait ends at most two ticks late."""
_LINGER_S = 1.0
"""How long a refused client has to read why."""
_MAX_LINGERING = 256
_LEAST_RESERVE = 96


def connections_of(descriptors: int) -> int:
    """How many clients may connect to a process that may have so many open files.

    A quarter of them, or what a small process needs, is kept for the admin port, connections to
    replicas and functions, and files: they work however many clients there are.
    """
    reserve = min(max(_LEAST_RESERVE, descriptors // 4), descriptors // 2)
    return max(1, descriptors - reserve)


class Wait(StrEnum):
    """What the gateway waits for on a connection."""

    HEADER = "header"
    IDLE = "idle"
    SEND = "send"


class ClientLimits:
    """The connections of one data port: counted, bounded, and ended when a wait is over.

    The limits are those of the runtime in force, so a reload changes them for open connections.
    `possible` is how many the process can have at all, whatever they say. `accepted`, `refused`,
    `handshakes_failed` and `timed_out` only grow.
    """

    def __init__(
        self, runtime: RuntimeRef, clock: Clock, bodies: BodyBudget, possible: int
    ) -> None:
        self._runtime = runtime
        self._bodies = bodies
        self.possible = possible
        self.clock = clock
        self.wheel = DeadlineWheel(clock, TICK_S)
        self.open = 0
        self.lingering = 0
        self.accepted = 0
        self.refused = 0
        self.handshakes_failed = 0
        self.timed_out = dict.fromkeys(Wait, 0)

    def enter(self, transport: asyncio.Transport) -> bool:
        """Count a new connection, or refuse it: it is then told why, and closed by and by.

        Who enters calls `leave` once.
        """
        refusal = self._refusal(self.open)
        if refusal is None:
            self.open += 1
            self.accepted += 1
            return True
        self.refused += 1
        refused = _Refused(self)
        transport.set_protocol(refused)
        refused.tell(transport, refusal, lingers=self.may_linger)
        return False

    def has_room_for(self, pending: int) -> bool:
        """Whether one more may begin a TLS handshake beside `pending` others; counts a refusal."""
        has_room = self._refusal(self.open + pending) is None
        self.refused += not has_room
        return has_room

    def _refusal(self, count: int) -> str | None:
        """Why there may be no more than `count` connections, if so."""
        server = self._runtime.current.settings.server
        most = min(server.max_connections, self.possible)
        if count >= most:
            return f"this gateway has its most client connections, {most}; use fewer, or try again"
        if not self._bodies.has_room(server.max_header_bytes):
            return "the gateway holds as many bytes as it may; try again soon"
        return None

    @property
    def may_linger(self) -> bool:
        """Whether one more that was refused may stay to read why."""
        return self.lingering < min(_MAX_LINGERING, self.possible // 8)

    def leave(self) -> None:
        """A connection that entered is gone."""
        self.open -= 1

    def allowed_s(self, wait: Wait) -> float:
        """How long that wait may take."""
        server = self._runtime.current.settings.server
        match wait:
            case Wait.HEADER:
                return server.header_timeout_s
            case Wait.IDLE:
                return server.keepalive_timeout_s
            case Wait.SEND:
                return server.send_timeout_s

    def close(self) -> None:
        """Stop the wheel; no wait ends any more."""
        self.wheel.close()


class _Refused(asyncio.Protocol):
    """A connection too many. What it sends is thrown away, so that it can read the refusal."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._tick = 0

    def tell(self, transport: asyncio.Transport, why: str, *, lingers: bool) -> None:
        """Send the refusal; without lingering, the client may see a reset instead."""
        answer = error_answer(TooManyConnectionsError(why), OIP)
        transport.write(error_bytes(answer, b"connection: close\r\n"))
        if not lingers:
            transport.close()
            return
        self._transport = transport
        self._limits.lingering += 1
        self._tick = self._limits.wheel.arm(self._limits.clock() + _LINGER_S, self)
        if transport.can_write_eof():
            transport.write_eof()

    def expire(self) -> None:
        """The client has had its time."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone, by itself or by us."""
        del exc
        if self._transport is not None:
            self._transport = None
            self._limits.lingering -= 1
            self._limits.wheel.disarm(self._tick, self)
