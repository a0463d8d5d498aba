"""The gateway's side of a client connection without a network: bytes in, what was understood out.

A `Wire` is one connection, with or without the fast path. What a request was understood as is the
same whichever path took it, so that both can be compared.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, cast

from aiohttp import web
from prometheus_client import CollectorRegistry

from router.backends.pool.endpoint import Endpoint
from router.dispatch.hedging import Hedger
from router.domain.errors import AttemptError, RouterError
from router.gateway.body import BodyBudget
from router.gateway.direct import Direct
from router.gateway.exchange import Telemetry
from router.gateway.http.client_limits import ClientLimits
from router.gateway.http.connection import ClientConnection
from router.gateway.http.framing import Arrival
from router.gateway.intake import Intent, read_intent
from router.gateway.protocols.oip import OIP
from router.gateway.relay import Headers
from router.gateway.responses import ErrorAnswer, error_answer
from router.gateway.server import GatewayServer
from router.gateway.shortcut.fast_attempt import Ground
from router.gateway.shortcut.fast_path import FastPath
from router.runtime import Runtime, RuntimeRef
from router.shadow.copies import Shadows
from router.telemetry.logs import AccessLog
from router.telemetry.metrics import Metrics
from router.telemetry.tracer import Tracer
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from router.upstream.connection import Sink
from router.upstream.response_head import ResponseHead
from tests.fakes.builders import FakeClock
from tests.fakes.runtimes import make_runtime

MAX_HEAD_BYTES = 2048
MODEL = """
server: {max_header: 2KiB}
models:
  - name: m
    slo: {latency_ms: 250}
    pool: {kind: static, urls: ["http://127.0.0.1:1"], concurrency: 1000}
"""
OK = ResponseHead(200, "OK", (("content-type", "application/json"),), 2, is_event_stream=False)
_STATUS = re.compile(rb"HTTP/(1\.[01] \d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_SETTLED_TURNS = 12


@dataclass(frozen=True)
class Understood:
    """A complete request. `seen` is its intent, or the name of the error that its head gives."""

    seen: Intent | str
    body: bytes


@dataclass
class Log:
    """What came of one connection. `fast` is how many requests the fast path answered."""

    understood: list[Understood] = field(default_factory=list)
    fast: int = 0


class Replica:
    """A connection to a replica that answers each request once all of it has come."""

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self._sink: Sink | None = None
        self._head = b""
        self._body = b""
        self._left = 0

    @property
    def is_busy(self) -> bool:
        return self._sink is not None

    def start(
        self, head: bytes, body: bytes, sink: Sink, deadline: float | None, to_come: int = 0
    ) -> None:
        del deadline
        assert self._sink is None, "one request at a time"
        self._sink, self._head, self._body = sink, head, body
        self._left = to_come
        self._answer_if_complete()

    def send_part(self, data: bytes) -> None:
        assert 0 < len(data) <= self._left
        self._body += data
        self._left -= len(data)
        self._answer_if_complete()

    def writable(self) -> None:
        return None

    def set_deadline(self, deadline: float) -> None:
        del deadline

    def cancel(self) -> None:
        self._sink = None

    def _answer_if_complete(self) -> None:
        if self._left:
            return
        lengths = _LENGTH.findall(self._head)
        assert lengths == [b"%d" % len(self._body)], "what is sent is what was announced"
        assert self._head.count(b"\r\n\r\n") == 1
        self._wire.replica_has(self._body)
        self._wire.when_released(self._answer)

    def _answer(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_head(OK)
            sink.on_data(b"{}")
            error: AttemptError | None = None
            sink.on_done(error)


class Replicas:
    """Stands for the upstream client: there is always an idle connection."""

    stream_idle_s = 60.0

    def __init__(self) -> None:
        self.wire: Wire | None = None

    def connection(self, address: object, waiter: object, timeout_s: float | None) -> Replica:
        del address, waiter, timeout_s
        assert self.wire is not None
        return Replica(self.wire)


class Recording(FastPath):
    """The fast path; tells the wire what it begins."""

    wire: "Wire"

    def begin(self, client: Any, known: Any, head: Any, body: bytes) -> Any:
        self.wire.begun.append(known.intent(head))
        attempt = super().begin(client, known, head, body)
        if attempt is None:
            self.wire.begun.pop()
        return attempt


class Gateway:
    """The data plane around the connections: one fast path, whose memory of heads stays."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.clock = clock
        self.runtime: Runtime = make_runtime(MODEL, clock)
        pool = self.runtime.models["m"].pool
        assert pool is not None
        pool.add(Endpoint("e", parse_address("http://127.0.0.1:1"), 1000))
        pool.mark_ready("e", is_ready=True)
        self.pool = pool
        metrics = Metrics(CollectorRegistry(), "0")
        metrics.configure(["m"])
        telemetry = Telemetry(metrics, AccessLog("off", lambda: 1.7e9), Tracer(metrics, Random()))
        self.ref = RuntimeRef(self.runtime)
        self.replicas = Replicas()
        self.bodies = BodyBudget(1 << 30)
        ground = Ground(
            cast(UpstreamClient, self.replicas),
            telemetry,
            self.bodies,
            clock,
            cast(Hedger, None),
            cast(Shadows, None),
        )
        self.fast = Recording(self.ref, ground, (b"%d" % number for number in count()))
        self.limits = ClientLimits(self.ref, clock, self.bodies, possible=1000)

    def wire(self, *, fast: bool) -> "Wire":
        """A new connection."""
        return Wire(self, fast=fast)


class MemoryTransport(asyncio.Transport):
    """Takes what is written; closes when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.reads = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closed:
            self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    write_eof = close  # for a client, that is the end

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Wire:
    """One client connection; make it in a running event loop."""

    def __init__(self, gateway: Gateway, *, fast: bool) -> None:
        self._gateway = gateway
        self.fast_path: FastPath | None = gateway.fast if fast else None
        self.limits = gateway.limits
        self.bodies = gateway.bodies
        self.is_draining = False
        self.log = Log()
        self.begun: list[Intent] = []
        self.transport = MemoryTransport()
        self.was_closed = False
        self._released = asyncio.Event()
        self._on_release: list[Callable[[], None]] = []
        server = GatewayServer(
            self, auto_decompress=False, access_log=None,
            max_line_size=MAX_HEAD_BYTES, max_field_size=MAX_HEAD_BYTES, read_bufsize=65536,
        )  # fmt: skip
        self.connection: ClientConnection = cast(ClientConnection, server())
        gateway.replicas.wire = gateway.fast.wire = self
        self.connection.connection_made(self.transport)

    def serve(self, client: Any, arrival: Arrival, carried: Any) -> Direct:
        """An ordinary request: read whole, and understood as the intake would."""
        del carried
        direct = Direct(client, arrival)
        direct.start(self._answer(direct, arrival))
        return direct

    async def _answer(self, direct: Direct, arrival: Arrival) -> None:
        message = arrival.message
        seen: Intent | str
        try:
            seen = read_intent(
                message.method, message.path, message.headers, self._gateway.runtime, 0.0,
                is_ready=True,
            )  # fmt: skip
        except RouterError as error:
            seen = f"{error.code}: {error}"
        body = await self._read(arrival)
        await self._released.wait()
        if body is None:
            direct.error(ErrorAnswer(400, [], b"", closes=True), [])
            return
        self.log.understood.append(Understood(seen, body))
        direct.whole(200, [], b"{}")

    def refuse(self, error: RouterError) -> tuple[ErrorAnswer, Headers]:
        """What is no request: the answer that the gateway would give."""
        return error_answer(error, OIP), ()

    def direct(self, client: Any, known: Any, head: Any, body: bytes, carried: Any) -> Direct:
        """A request that the shortcut declined: understood all the same."""
        del carried
        self.log.understood.append(Understood(known.intent(head), body))
        direct = Direct(client)

        async def answer() -> None:
            await self._released.wait()
            direct.whole(200, [], b"{}")

        direct.start(answer())
        return direct

    @staticmethod
    async def _read(arrival: Arrival) -> bytes | None:
        parts = []
        try:
            while part := await arrival.payload.readany():
                parts.append(part)
        except web.RequestPayloadError:
            return None
        return b"".join(parts)

    def release(self) -> None:
        """Let all answers come, from now on at once."""
        self._released.set()
        for callback in self._on_release:
            callback()
        self._on_release.clear()

    def when_released(self, callback: Callable[[], None]) -> None:
        """Call soon, but not before answers may come."""
        if self._released.is_set():
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._on_release.append(callback)

    def replica_has(self, body: bytes) -> None:
        """The fast path has passed a request on, to its end."""
        self.log.understood.append(Understood(self.begun.pop(0), body))
        self.log.fast += 1

    async def receive(self, segments: Sequence[bytes]) -> None:
        """Let these segments arrive one after another, at the pace that the gateway reads."""
        for segment in segments:
            if not self.transport.reads:
                self.release()  # or the gateway would read no more
                await self.settle()
            if self.transport.is_closed:
                break
            self.connection.data_received(segment)
            await self.settle()

    async def settle(self) -> None:
        """Until nothing moves any more without more bytes."""
        seen = None
        while seen != (seen := (len(self.log.understood), len(self.transport.written))):
            for _ in range(_SETTLED_TURNS):
                await asyncio.sleep(0)

    async def run_out_of_patience(self) -> None:
        """As after the time that the fast path waits for the rest of a small body."""
        if self.connection._patience is not None:
            self.connection._patience.cancel()
            self.connection._lose_patience()
            await self.settle()

    async def end(self) -> None:
        """The client goes away."""
        task = self.connection._task_handler
        self.connection.connection_lost(None)
        self.connection.transport = None
        if task is not None:
            await asyncio.wait({task})
        await self.settle()

    @property
    def statuses(self) -> list[int]:
        """The statuses of all answers."""
        return [int(found[4:]) for found in _STATUS.findall(bytes(self.transport.written))]

    @property
    def outcome(self) -> tuple[list[Understood], list[bytes], bool]:
        """What the client and the backends have seen of the connection."""
        answers = _STATUS.findall(bytes(self.transport.written))
        return self.log.understood, answers, self.was_closed


def play(
    loop: asyncio.AbstractEventLoop,
    gateway: Gateway,
    segments: Sequence[bytes],
    *,
    fast: bool,
    is_late: bool = False,
) -> Wire:
    """One connection from its first byte to its end; late answers come when all has been sent."""

    async def run() -> Wire:
        wire = gateway.wire(fast=fast)
        await wire.settle()
        if not is_late:
            wire.release()
        await wire.receive(segments)
        wire.release()
        await wire.settle()
        await wire.run_out_of_patience()
        wire.connection._stop_patience()
        wire.was_closed = wire.transport.is_closed
        await wire.end()
        return wire

    return loop.run_until_complete(run())


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut into segments of these sizes; the rest is one."""
    segments = []
    for size in sizes:
        if not data:
            break
        segments.append(data[:size])
        data = data[size:]
    return [*segments, data] if data else segments
