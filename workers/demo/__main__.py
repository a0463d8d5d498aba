"""`python -m workers.demo`: plays real traffic against a running gateway and shows what happens.

Exits 1 if no gateway answers, a model never does, or a request failed otherwise than for want of
capacity.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.live import Live

from workers.demo.outcome import Outcome
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
    parser.add_argument("--files", type=Path, default=Path(), help="folder with files to send")
    parser.add_argument("--steady", type=float, default=30.0, help="seconds of steady traffic")
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        return asyncio.run(_run(arguments, console))
    except (aiohttp.ClientError, TimeoutError) as error:
        console.print(
            f"no gateway at {arguments.url} (--url): start one with `make serve`"
            f" or `hybrid-router demo` ({error})"
        )
        return 1
    except KeyboardInterrupt:
        return 1


async def _run(arguments: argparse.Namespace, console: Console) -> int:
    inputs = Inputs(arguments.files, arguments.models)
    tally, outcome = Tally(), Outcome()
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        async with session.get(f"{arguments.url}/v2/health/live"):
            pass  # somebody is there
        traffic = Traffic(session, arguments.url, inputs)
        admin = _Admin(session, arguments.admin, outcome)
        for scene in traffic.scenes(arguments.steady):
            await _play(scene, tally, admin, console)
        with console.status("silence: replicas that no longer pay are stopped"):
            status = await _until_idle(admin)
        console.print(screen(None, tally, status))
    for sentence in outcome.sentences(os.getloadavg()[0], os.cpu_count() or 1):
        console.print(sentence, markup=False, highlight=False)
    return 0 if outcome.is_good else 1


class _Admin:
    """The admin port; what it says of replicas is noted."""

    def __init__(self, session: aiohttp.ClientSession, url: str, outcome: Outcome) -> None:
        self._session = session
        self._url = url
        self.outcome = outcome

    async def status(self) -> dict[str, Any] | None:
        """The status document; None if there is no answer."""
        try:
            async with self._session.get(f"{self._url}/v1/status") as response:
                document: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        self.outcome.saw(document)
        return document


async def _play(scene: Scene, tally: Tally, admin: _Admin, console: Console) -> None:
    """Play one scene; the screen and the status are refreshed while it runs."""
    status = await admin.status()
    # On a terminal the picture is redrawn; into a file only the end of each scene is written.
    with Live(screen(scene, tally, status), console=console, auto_refresh=False) as live:
        refreshed = 0.0
        loop = asyncio.get_running_loop()
        async for step in scene.play():
            tally.add(step)
            admin.outcome.add(step.call)
            if loop.time() - refreshed > _REFRESH_S:
                refreshed = loop.time()
                status = await admin.status()
                live.update(screen(scene, tally, status), refresh=console.is_terminal)
        status = await admin.status()
        live.update(screen(scene, tally, status), refresh=True)


async def _until_idle(admin: _Admin) -> dict[str, Any] | None:
    status = None
    give_up_at = asyncio.get_running_loop().time() + _SILENCE_S
    while asyncio.get_running_loop().time() < give_up_at:
        status = await admin.status()
        if status is None or not any(model["replicas_ready"] for model in status["models"]):
            break
        await asyncio.sleep(_REFRESH_S)
    return status


if __name__ == "__main__":
    sys.exit(main())
