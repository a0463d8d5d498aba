"""The Lambda Runtime API as one sandbox sees it: poll for an event, post the answer.

Each sandbox has a listener of its own on an ephemeral loopback port, because its runtime client
is configured by an address alone: so the port says who is speaking, and a sandbox can neither
take nor answer another's invocation. Every user of the machine reaches the port: what speaks on it
for the sandbox is a path that only its process is told. It turns HTTP into events and decides
nothing about the environment's life.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest

from aiohttp import web
from aiohttp.typedefs import Handler

from workers.function_host.bodies import BodyLostError, BodyTooLargeError, read_body
from workers.function_host.invocation import MAX_PAYLOAD_BYTES

_BASE = "/{secret}/2018-06-01/runtime"
_SECRET_BYTES = 16
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Polled:
    """The runtime asks for work: initialised, or done with the last invocation."""


@dataclass(frozen=True, slots=True)
class InitFailed:
    """The runtime could not load the handler; it is about to exit."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The handler returned."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Raised:
    """The handler raised."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class AnsweredTooMuch:
    """The handler's answer is over the limit; its body was not kept."""


RuntimeEvent = Polled | InitFailed | Answered | Raised | AnsweredTooMuch


@dataclass(frozen=True, slots=True)
class Delivery:
    """One invocation as the runtime gets it; the deadline is wall-clock time."""

    request_id: str
    event: bytes
    deadline_epoch_ms: int
    function_arn: str


class RuntimeApi:
    """Serves one sandbox. Callers `deliver` only after a Polled event, once for each."""

    def __init__(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        self._on_event = on_event
        self._secret = secrets.token_hex(_SECRET_BYTES)
        self._poll: asyncio.Future[Delivery | None] | None = None
        self._running: str | None = None
        self._initialised = False
        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=_CLOSE_S, auto_decompress=False
        )

    async def listen(self) -> str:
        """Start listening; return `host:port/secret`. Raises OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"{host}:{port}/{self._secret}"

    def deliver(self, delivery: Delivery) -> None:
        """Answer the waiting poll with an invocation. Raises RuntimeError if none waits."""
        if self._poll is None:
            raise RuntimeError("the runtime has not asked for work")
        self._running = delivery.request_id
        if not self._poll.done():
            self._poll.set_result(delivery)
        self._poll = None

    async def close(self) -> None:
        """Stop listening; a waiting poll is turned away."""
        self._dismiss_poll()
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._check_secret])
        application.add_routes(
            [
                web.get(f"{_BASE}/invocation/next", self._next),
                web.post(f"{_BASE}/invocation/{{id}}/response", self._response),
                web.post(f"{_BASE}/invocation/{{id}}/error", self._error),
                web.post(f"{_BASE}/init/error", self._init_error),
            ]
        )
        return application

    @web.middleware
    async def _check_secret(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        told = request.path.split("/", 2)[1].encode("utf-8", "surrogateescape")
        if not compare_digest(told, self._secret.encode()):
            return _refuse(403, "AccessDenied", "this is another's runtime")
        return await handler(request)

    async def _next(self, _request: web.Request) -> web.Response:
        if self._running is not None:
            return _refuse(403, "InvalidStateTransition", "the last invocation was not answered")
        is_first = self._poll is None
        # A client that lost its connection polls again: the latest poll is the one alive.
        self._dismiss_poll()
        poll = self._poll = asyncio.get_running_loop().create_future()
        self._initialised = True
        if is_first:
            self._on_event(Polled())
        delivery = await poll
        if delivery is None:
            return _refuse(410, "Runtime.Closed", "this sandbox gets no more work")
        return _delivery_response(delivery)

    async def _response(self, request: web.Request) -> web.Response:
        return await self._finish(request, Answered)

    async def _error(self, request: web.Request) -> web.Response:
        return await self._finish(request, Raised)

    async def _finish(
        self, request: web.Request, outcome: type[Answered] | type[Raised]
    ) -> web.Response:
        request_id = request.match_info["id"]
        if request_id != self._running:
            return _refuse(400, "InvalidRequestID", "no such invocation is running here")
        event: RuntimeEvent
        try:
            event = outcome(await read_body(request, MAX_PAYLOAD_BYTES))
        except BodyTooLargeError:
            event = AnsweredTooMuch()
        except BodyLostError:  # the runtime died while it answered, or will try again
            return _refuse(400, "InvalidRequest", "the answer was cut off")
        if request_id != self._running:  # answered twice at once: the first one counts
            return _refuse(400, "InvalidRequestID", "the invocation was answered already")
        self._running = None
        self._on_event(event)
        if isinstance(event, AnsweredTooMuch):
            return _refuse(413, "RequestEntityTooLarge", f"over {MAX_PAYLOAD_BYTES} bytes")
        return _accept()

    async def _init_error(self, request: web.Request) -> web.Response:
        if self._initialised:
            return _refuse(403, "InvalidStateTransition", "initialised already")
        try:
            payload = await read_body(request, MAX_PAYLOAD_BYTES)
        except BodyLostError:
            return _refuse(400, "InvalidRequest", "the error was cut off")
        except BodyTooLargeError:
            return _refuse(413, "RequestEntityTooLarge", f"over {MAX_PAYLOAD_BYTES} bytes")
        self._initialised = True
        self._on_event(InitFailed(payload))
        return _accept()

    def _dismiss_poll(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)


def _delivery_response(delivery: Delivery) -> web.Response:
    return web.Response(
        body=delivery.event,
        content_type="application/json",
        headers={
            "Lambda-Runtime-Aws-Request-Id": delivery.request_id,
            "Lambda-Runtime-Deadline-Ms": str(delivery.deadline_epoch_ms),
            "Lambda-Runtime-Invoked-Function-Arn": delivery.function_arn,
        },
    )


def _accept() -> web.Response:
    return web.json_response({"status": "OK"}, status=202)


def _refuse(status: int, error_type: str, message: str) -> web.Response:
    return web.json_response({"errorType": error_type, "errorMessage": message}, status=status)
