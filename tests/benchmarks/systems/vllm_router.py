"""vllm-router, a Rust router for OpenAI-shaped requests; it takes no other kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.children import free_port
from tests.benchmarks.scenarios import Scenario, Shape
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.tools import Tools, first_line


@dataclass(frozen=True, slots=True)
class VllmRouter:
    """An inference router in Rust."""

    name: str = "vllm-router"
    is_exact: bool = False

    def takes(self, scenario: Scenario) -> bool:
        """Only what has a route of its own there."""
        return scenario.shape is Shape.OPENAI

    def version(self, tools: Tools) -> str:
        """Of the installed package."""
        python = tools.python("vllm-router", "python")
        code = "from importlib.metadata import version; print(version('vllm-router'))"
        return f"vllm-router {first_line([str(python), '-c', code])}"

    @contextmanager
    def run(self, site: Site, tools: Tools) -> Iterator[Running]:
        """One process with one worker to route to; threads as it likes, on one core."""
        argv = [
            str(tools.python("vllm-router", "vllm-router")),
            "--host", "127.0.0.1", "--port", str(site.port),
            "--worker-urls", f"http://{site.upstream}", "--policy", "round_robin",
            "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
            "--log-level", "error",
        ]  # fmt: skip
        with server(argv, site) as running:
            yield running
