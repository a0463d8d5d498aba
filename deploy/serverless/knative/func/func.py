"""What Knative's `func` looks for: `new` in func.py. ASGI in, the worker's reply out."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from workers.function_environment import MAX_BODY_BYTES, FunctionEnvironment

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Function:
    """One instance: loads the model when it is made, answers requests from threads."""

    def __init__(self) -> None:
        self._environment = FunctionEnvironment(os.environ)

    async def handle(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = await _read(receive)
        path = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        reply = await asyncio.to_thread(
            self._environment.answer, scope["method"], path, headers, lambda: body
        )
        found = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": found})
        await send({"type": "http.response.body", "body": reply.body})


async def _read(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more and len(body) <= MAX_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def new() -> Function:
    """The instance that `func` runs."""
    return Function()
