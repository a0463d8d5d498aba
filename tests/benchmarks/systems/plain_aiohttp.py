"""The proxy that everybody writes first: an aiohttp application that calls `ClientSession`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp

from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.tools import ROOT, Tools


@dataclass(frozen=True, slots=True)
class PlainAiohttp:
    """What the gateway would cost without its own request path."""

    name: str = "plain-aiohttp"
    is_exact: bool = True

    def takes(self, scenario: Scenario) -> bool:
        """Whether it is measured with it; it would take any HTTP."""
        return scenario.is_basic

    def version(self, tools: Tools) -> str:
        """Of the library in the project's own environment."""
        del tools
        return f"aiohttp {aiohttp.__version__}, asyncio"

    @contextmanager
    def run(self, site: Site, tools: Tools) -> Iterator[Running]:
        """One process."""
        del tools
        argv = [
            sys.executable, "-m", "tests.benchmarks.systems.plain_aiohttp_app",
            str(site.port), f"http://{site.upstream}",
        ]  # fmt: skip
        with server(argv, site, {"PYTHONPATH": str(ROOT)}) as running:
            yield running
