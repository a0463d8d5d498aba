"""A headless Chromium, driven over its debugging protocol: as little as tests of a page need."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

_WITHIN_S = 30.0
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--remote-debugging-port=0", "--hide-scrollbars",
)  # fmt: skip


class Tab:
    """One page; `complaints` are errors of its console and scripts, and requests that failed."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says until it is gone."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told["params"])

    def _note(self, method: str, params: Any) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.complaints.append(str(params["args"]))

    async def tell(self, method: str, **params: Any) -> Any:
        """Have the browser do something; returns its answer."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(_WITHIN_S):
            told = await answer
        assert "error" not in told, told
        return told["result"]

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        told = await self.tell(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until the expression is true."""
        async with asyncio.timeout(_WITHIN_S):
            while not await self.run(f"!!({script})"):
                await asyncio.sleep(0.05)

    async def screenshot(self, path: Path) -> None:
        """Keep a picture of it."""
        told = await self.tell("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(told["data"]))


@asynccontextmanager
async def browsing(folder: Path, *, width: int = 1280, height: int = 900) -> AsyncIterator[Tab]:
    """An empty tab of a browser that is ended afterwards."""
    process = await asyncio.create_subprocess_exec(
        "chromium", *_FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}",
        "about:blank",
        stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(folder)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as reply:
                found = next(each for each in await reply.json() if each["type"] == "page")
            async with session.ws_connect(found["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.tell(f"{domain}.enable")
                yield tab
                await socket.close()
                await listening
    finally:
        process.kill()
        await process.wait()


async def _port(folder: Path) -> int:
    async with asyncio.timeout(_WITHIN_S):
        while True:  # the browser writes it once it listens, and not at one go
            told = await asyncio.to_thread(_read, folder / "DevToolsActivePort")
            if "\n" in told:
                return int(told.splitlines()[0])
            await asyncio.sleep(0.05)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
