"""What open pages cost a gateway: its CPU with none, with one and with twenty, in turns in one run.

`python -m tests.benchmarks.page_cost [MODELS] [REQUESTS_PER_S]`. Requests go round all models, so
that many rows change each second. Shares are of one core; what a page costs is the difference.
Times are those of the requests, which one client sends one after the other.
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles

import aiohttp
import psutil
import yaml

from tests.fakes.upstreams import FunctionUpstream, ok, running

_READY = re.compile(r"ready: inference (\S+)  admin (\S+)")
_TABS = (0, 1, 20)
_WINDOW_S = 8.0
_ROUNDS = 5


def _config(models: int, function: str) -> str:
    serverless = {
        "kind": "aws_lambda", "function": "fn", "region": "eu-central-1", "endpoint_url": function,
    }  # fmt: skip
    return yaml.safe_dump({
        "server": {
            "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "access_log": "off",
        },
        "models": [
            {"name": f"model-{number}", "slo": {"latency_ms": 500}, "serverless": serverless}
            for number in range(models)
        ],
    })  # fmt: skip


class _Tabs:
    """Readers of the page's stream, which do with it what a browser does: take it."""

    def __init__(self, session: aiohttp.ClientSession, admin: str) -> None:
        self._session = session
        self._admin = admin
        self._tasks: list[asyncio.Task[None]] = []
        self.took_s: dict[int, list[float]] = {number: [] for number in (-1, *_TABS)}
        self.number = -1
        self.messages = 0
        self.bytes = 0

    async def _read(self) -> None:
        async with self._session.get(f"{self._admin}/v1/stream") as stream:
            async for part in stream.content.iter_any():
                self.messages += part.count(b"\n\n")
                self.bytes += len(part)

    async def are(self, number: int) -> None:
        """Open or close as many as it takes."""
        self.number = -1  # requests meanwhile count for none of them
        while len(self._tasks) < number:
            self._tasks.append(asyncio.create_task(self._read()))
        gone, self._tasks = self._tasks[number:], self._tasks[:number]
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        await asyncio.sleep(2.0)
        self.number = number


async def _send(
    session: aiohttp.ClientSession, url: str, models: int, per_s: float, tabs: _Tabs
) -> None:
    number, due = 0, time.monotonic()
    while True:
        model, began = f"model-{number % models}", time.monotonic()
        async with session.post(f"{url}/v2/models/{model}/infer", data=b"{}") as reply:
            await reply.read()
        tabs.took_s[tabs.number].append(time.monotonic() - began)
        number, due = number + 1, due + 1 / per_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _urls(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """The addresses of both ports, as the gateway says them when it is ready."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            if (found := _READY.search(line.decode())) is not None:
                return found[1], found[2]
    raise AssertionError("the gateway has ended")


async def _measure(models: int, per_s: float) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        function = await stack.enter_async_context(running(FunctionUpstream(ok())))
        file = folder / "router.yaml"
        await asyncio.to_thread(file.write_text, _config(models, function.url))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router", "serve", "--config", str(file),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "made-up"},
        )  # fmt: skip
        stack.callback(process.kill)
        url, admin = await _urls(process)
        timeout = aiohttp.ClientTimeout(total=None)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        tabs, gateway = _Tabs(session, admin), psutil.Process(process.pid)
        sending = asyncio.create_task(_send(session, url, models, per_s, tabs))
        stack.callback(sending.cancel)
        shares: dict[int, list[float]] = {number: [] for number in _TABS}
        for _ in range(_ROUNDS):
            for number in _TABS:
                await tabs.are(number)
                shares[number].append(await _share(gateway))
        told = [f"{models} models, {per_s:g} requests/s; medians of {_ROUNDS} windows"]
        none = median(shares[0])
        for number, found in shares.items():
            each = ", ".join(f"{100 * one:.2f}" for one in found)
            more = 100 * (median(found) - none)
            took_ms = [1e3 * cut for cut in quantiles(tabs.took_s[number], n=100)]
            told.append(
                f"{number:2} tabs: {100 * median(found):.2f} % ({each}), {more:+.2f};"
                f" p50 {took_ms[49]:.2f} ms, p99 {took_ms[98]:.2f} ms"
            )
        size = tabs.bytes / max(1, tabs.messages) / 1e3
        sys.stdout.write("\n".join([*told, f"{tabs.messages} messages of {size:.1f} kB", ""]))


async def _share(gateway: psutil.Process) -> float:
    before, began = gateway.cpu_times(), time.monotonic()
    await asyncio.sleep(_WINDOW_S)
    after, took_s = gateway.cpu_times(), time.monotonic() - began
    return float(after.user + after.system - before.user - before.system) / took_s


if __name__ == "__main__":
    arguments = [float(each) for each in sys.argv[1:]]
    asked = [*arguments, *(1000.0, 100.0)[len(arguments) :]]
    asyncio.run(_measure(int(asked[0]), asked[1]))
