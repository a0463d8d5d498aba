"""HAProxy with one thread and shared upstream connections."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.tools import Tools, first_line

_CONFIG = """
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend model
backend model
    server one {upstream} pool-max-conn 2048
"""


@dataclass(frozen=True, slots=True)
class Haproxy:
    """A compiled proxy."""

    name: str = "haproxy"
    is_exact: bool = True

    def takes(self, scenario: Scenario) -> bool:
        """Whether it is measured with it; it would take any HTTP."""
        return scenario.is_basic

    def version(self, tools: Tools) -> str:
        """As the program says."""
        return " ".join(first_line([tools.debian("haproxy", "haproxy"), "-v"]).split()[:3])

    @contextmanager
    def run(self, site: Site, tools: Tools) -> Iterator[Running]:
        """In the foreground."""
        config = site.folder / "haproxy.cfg"
        config.write_text(_CONFIG.format(port=site.port, upstream=site.upstream))
        with server(
            [tools.debian("haproxy", "haproxy"), "-db", "-f", str(config)], site
        ) as running:
            yield running
