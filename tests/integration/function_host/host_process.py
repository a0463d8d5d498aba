"""A real function host process for tests, and a client that speaks to it."""

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).resolve().parents[3]
HANDLERS = REPOSITORY / "tests" / "data" / "handlers"
READY_S = 15.0
WAIT_S = 10.0


class HostProcess:
    """A started host; `stop` must be called. It also dies with the test process."""

    def __init__(self, directory: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.stderr_path = directory / "host.stderr"
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "workers.function_host", "--listen", "127.0.0.1:0"),
                    "--exit-with-parent",
                    *arguments,
                ],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(env or {})},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), (line, self.stderr())
        self.url = line.split()[1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def log(self, event: str) -> list[dict[str, Any]]:
        """The JSON log lines of one kind."""
        lines = [json.loads(line) for line in self.stderr().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass(frozen=True)
class Reply:
    """A response of the host, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def log(self) -> str:
        return base64.b64decode(self.headers["X-Amz-Log-Result"]).decode()


class HostClient:
    """Calls one host over one aiohttp session."""

    def __init__(self, host: HostProcess, session: aiohttp.ClientSession) -> None:
        self.host = host
        self._session = session

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        if isinstance(options.get("data"), bytes):
            options["data"] = io.BytesIO(options["data"])  # aiohttp warns of large bytes
        async with self._session.request(method, self.host.url + path, **options) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def declare(self, *functions: dict[str, Any]) -> Reply:
        return await self.request("PUT", "/host/functions", json={"functions": list(functions)})

    async def invoke(
        self, name: str, *steps: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Reply:
        return await self.invoke_raw(name, json.dumps({"steps": steps}).encode(), headers=headers)

    async def invoke_raw(
        self, name: str, data: Any, headers: dict[str, str] | None = None, query: str = ""
    ) -> Reply:
        path = f"/2015-03-31/functions/{name}/invocations{query}"
        return await self.request("POST", path, data=data, headers=headers or {})

    async def view(self) -> Any:
        return (await self.request("GET", "/host/functions")).json

    async def function_view(self, name: str) -> Any:
        return next(f for f in (await self.view())["functions"] if f["name"] == name)

    async def environments(self, name: str) -> list[dict[str, Any]]:
        environments: list[dict[str, Any]] = (await self.function_view(name))["environments"]
        return environments


def function(name: str, **settings: Any) -> dict[str, Any]:
    """A declaration of the scripted handler."""
    return {
        "name": name,
        "handler": "scripted.handler",
        "working_dir": str(HANDLERS),
        "timeout_s": 10,
        **settings,
    }


async def eventually(condition: Callable[[], Awaitable[bool] | bool], what: str) -> None:
    """Wait until the condition holds; fail after WAIT_S."""
    end = time.monotonic() + WAIT_S
    while True:
        outcome = condition()
        if outcome if isinstance(outcome, bool) else await outcome:
            return
        assert time.monotonic() < end, f"never happened: {what}"
        await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """True while the process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
