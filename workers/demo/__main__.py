"""`python -m workers.demo`: plays real traffic against a running gateway and shows what happens.

Exits 1 if no gateway answers or a request failed.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.live import Live

from workers.demo.scenes import Inputs, Scene, Traffic
from workers.demo.screen import Tally, screen

_REFRESH_S = 0.25
_SILENCE_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.demo", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="data port")
    parser.add_argument("--admin", default="http://127.0.0.1:9090", help="admin port")
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument("--files", type=Path, default=Path(), help="folder whose files are sent")
    parser.add_argument("--steady", type=float, default=30.0, help="seconds of steady traffic")
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        return asyncio.run(_run(arguments, console))
    except aiohttp.ClientError as error:
        console.print(f"no gateway at {arguments.url}: start one with `make serve` ({error})")
        return 1
    except KeyboardInterrupt:
        return 1


async def _run(arguments: argparse.Namespace, console: Console) -> int:
    inputs = Inputs(arguments.files, arguments.models)
    tally = Tally()
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        traffic = Traffic(session, arguments.url, inputs)
        status = await _status(session, arguments.admin)
        for scene in traffic.scenes(arguments.steady):
            status = await _play(scene, tally, session, arguments.admin, console)
        with console.status("silence: replicas that no longer pay are stopped"):
            status = await _until_idle(session, arguments.admin)
        console.print(screen(None, tally, status))
    if tally.failed:
        console.print(f"[red]{tally.failed} requests failed")
    return 1 if tally.failed else 0


async def _play(
    scene: Scene, tally: Tally, session: aiohttp.ClientSession, admin: str, console: Console
) -> dict[str, Any] | None:
    """Play one scene; the screen and the status are refreshed while it runs."""
    status = await _status(session, admin)
    # On a terminal the picture is redrawn; into a file only the end of each scene is written.
    with Live(screen(scene, tally, status), console=console, auto_refresh=False) as live:
        refreshed = 0.0
        loop = asyncio.get_running_loop()
        async for step in scene.play():
            tally.add(step)
            if loop.time() - refreshed > _REFRESH_S:
                refreshed = loop.time()
                status = await _status(session, admin)
                live.update(screen(scene, tally, status), refresh=console.is_terminal)
        status = await _status(session, admin)
        live.update(screen(scene, tally, status), refresh=True)
    return status


async def _until_idle(session: aiohttp.ClientSession, admin: str) -> dict[str, Any] | None:
    status = None
    give_up_at = asyncio.get_running_loop().time() + _SILENCE_S
    while asyncio.get_running_loop().time() < give_up_at:
        status = await _status(session, admin)
        if status is None or not any(model["replicas_ready"] for model in status["models"]):
            break
        await asyncio.sleep(_REFRESH_S)
    return status


async def _status(session: aiohttp.ClientSession, admin: str) -> dict[str, Any] | None:
    try:
        async with session.get(f"{admin}/v1/status") as response:
            document: dict[str, Any] = await response.json()
            return document
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
