"""The real gateway in this event loop, on loopback ports, in front of upstreams that do as told.

async with Harness(tmp_path, warm=[ok(), slow], function=ok()) as gateway:
    answer = await gateway.infer(b"{}")
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from multidict import CIMultiDict, CIMultiDictProxy

from router.app import Gateway
from router.assembly.runtime import new_parts
from router.settings.loader import load
from tests.fakes.upstreams import Behaviour, FunctionUpstream, Upstream, running

WITHIN_S = 10.0
INFER = "/v2/models/m/infer"
_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass(frozen=True)
class Reply:
    """What a client got."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def decision(self) -> tuple[str | None, str | None]:
        return self.headers.get("x-router-backend"), self.headers.get("x-router-reason")


class Harness:
    """One model `m`, backed by as many static replicas as `warm` has, and perhaps a function.

    `server`, `model`, `pool` and `serverless` are laid over the ordinary settings of those groups;
    `config` over the whole.
    """

    instance_id = "test"

    def __init__(
        self,
        folder: Path,
        warm: Sequence[Behaviour | Upstream] = (),
        function: Behaviour | None = None,
        **settings: Mapping[str, Any],
    ) -> None:
        self.file = folder / "router.yaml"
        self.warm = [one if isinstance(one, Upstream) else Upstream(one) for one in warm]
        self._function = FunctionUpstream(function) if function is not None else None
        self._settings = settings
        self._log = folder / "access.log"
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self.url = self.admin = ""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for upstream in (*self.warm, *([self._function] if self._function else [])):
                await stack.enter_async_context(running(upstream))
            self.config = self._make_config()
            await self.write(self.config)
            self.client = await stack.enter_async_context(
                aiohttp.ClientSession(
                    auto_decompress=False,
                    timeout=aiohttp.ClientTimeout(total=WITHIN_S),
                    connector=aiohttp.TCPConnector(limit=0),
                )
            )
            await self._start()
            stack.push_async_callback(self.stop)
            await self._until_ready()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        loaded = await asyncio.to_thread(load, self.file, _ENVIRONMENT)
        self.gateway = Gateway(self.file, _ENVIRONMENT, loaded, new_parts(), self.instance_id)
        ready = asyncio.Event()

        def on_ready(data_url: str, admin_url: str) -> None:
            self.url, self.admin = data_url, admin_url
            ready.set()

        self._running = asyncio.create_task(self.gateway.run(self._stop, on_ready))
        waiting = asyncio.create_task(ready.wait())
        async with asyncio.timeout(WITHIN_S):
            await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self._running
            raise AssertionError("the gateway ended before it was ready")

    async def _until_ready(self) -> None:
        """Until every replica that can be ready is."""
        if self.warm:
            count = sum(upstream.is_ready for upstream in self.warm)
            await self.until(lambda: self.pool.ready == count)

    def _make_config(self) -> dict[str, Any]:
        model: dict[str, Any] = {"name": "m", "slo": {"latency_ms": 5000}}
        if self.warm:
            model["pool"] = {
                "kind": "static",
                "urls": [upstream.url for upstream in self.warm],
                "concurrency": 4,
                "health": {"interval": "50ms", "timeout": "2s"},
                **self._settings.get("pool", {}),
            }
        if self._function is not None:
            model["serverless"] = {
                "kind": "aws_lambda",
                "function": "fn",
                "region": "eu-central-1",
                "endpoint_url": self._function.url,
                **self._settings.get("serverless", {}),
            }
        return {
            "server": {
                "listen": "127.0.0.1:0",
                "admin_listen": "127.0.0.1:0",
                "backend_hint": "allow",
                "access_log": "access.log",
                "drain_timeout": "5s",
                **self._settings.get("server", {}),
            },
            "models": [{**model, **self._settings.get("model", {})}],
            **self._settings.get("config", {}),
        }

    async def write(self, config: Mapping[str, Any] | str) -> None:
        """Write the settings file."""
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config))
        await asyncio.to_thread(self.file.write_text, text)

    def changed(self, **model: Any) -> dict[str, Any]:
        """The configuration with other values for the model; `pool` and `serverless` merge."""
        config = deepcopy(self.config)
        found = config["models"][0]
        for name, value in model.items():
            found[name] = {**found.get(name, {}), **value} if isinstance(value, dict) else value
        return config

    async def stop(self) -> None:
        """Drain, as a signal would make it; returns when the gateway has ended."""
        self._stop.set()
        async with asyncio.timeout(WITHIN_S):
            await asyncio.wait({self._running})
        self._running.result()

    async def restart(self) -> None:
        """Stop, and start again with the file as it is now."""
        await self.stop()
        self._stop = asyncio.Event()
        await self._start()
        await self._until_ready()

    def begin_to_stop(self) -> None:
        """What a signal does, without waiting."""
        self._stop.set()

    @property
    def function(self) -> FunctionUpstream:
        """What stands behind the model's function."""
        assert self._function is not None
        return self._function

    @property
    def pool(self) -> Any:
        """The live pool of the model."""
        return self.gateway._runtime.current.models["m"].pool

    @property
    def runtime_function(self) -> Any:
        """The live function of the model."""
        return self.gateway._runtime.current.models["m"].serverless

    @property
    def in_flight(self) -> int:
        return self.gateway._data.in_flight

    # -- clients ---------------------------------------------------------------------------------

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Any = ()
    ) -> Reply:
        """One request of the data port, sent exactly as given."""
        data = BytesIO(body) if body is not None else None
        async with self.client.request(
            method, self.url + path, data=data, headers=CIMultiDict(headers),
            skip_auto_headers=["content-type", "accept", "accept-encoding", "user-agent"],
        ) as response:  # fmt: skip
            return Reply(response.status, response.headers, await response.read())

    async def infer(self, body: bytes = b"{}", path: str = INFER, **headers: str) -> Reply:
        """One inference; keyword `x_router_backend` is header `x-router-backend`."""
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await self.request("POST", path, body, named)

    async def ask(self, method: str, path: str, question: Any = None, headers: Any = ()) -> Reply:
        """One request of the admin port."""
        async with self.client.request(
            method, self.admin + path, json=question, headers=headers
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def status(self) -> Any:
        """The model's part of the status document."""
        return (await self.ask("GET", "/v1/status")).json()["models"][0]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection to the data port, closed at the end if the test does not."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        self._stack.callback(_abort, writer)  # holds the writer: it must not be collected before
        return reader, writer

    async def raw(self, *parts: bytes, half_close: bool = False) -> bytes:
        """Send bytes as they are; what comes back until the gateway closes, or has answered."""
        reader, writer = await self.connect()
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(WITHIN_S):
                return await _read_response(reader)
        finally:
            writer.transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, for a bounded time."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.002)

    async def logged(self, request_id: str) -> dict[str, Any]:
        """The line of a request in the access log, once it has been written."""
        (line,) = await self.logged_times(request_id, 1)
        return line

    async def logged_times(self, request_id: str, times: int) -> list[dict[str, Any]]:
        """The lines of a request that comes by so often; no more may be there."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                text = await asyncio.to_thread(self._read_log)
                lines = (json.loads(line) for line in text.splitlines())
                found = [dict(line) for line in lines if line["request_id"] == request_id]
                if len(found) >= times:
                    assert len(found) == times, "a request is logged once each time that it comes"
                    return found
                await asyncio.sleep(0.02)

    def _read_log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _read_response(reader: asyncio.StreamReader) -> bytes:
    """A head, and the body its Content-Length announces; less if the peer closes."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionResetError:
        return b""
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    try:
        return head + await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        return head + error.partial
