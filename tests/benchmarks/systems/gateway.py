"""The gateway as its users run it: `hybrid-router serve` with everything on.

50 rules, 100 models, both backends per model (so that every request is steered), metrics, access
log to a file, and a Redis that counters are flushed to.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from router import __version__
from tests.benchmarks.children import BenchmarkError, exchange, free_port
from tests.benchmarks.scenarios import BY_NAME, MODEL, Scenario
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.systems.valkey import redis_server
from tests.benchmarks.tools import Tools

RULES, MODELS = 50, 100
_READY_S = 20.0
_POLL_S = 0.05


class RedisState(StrEnum):
    """What the shared state is like during a run."""

    ON = "on"
    OFF = "off"
    PAUSED = "paused"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Gateway:
    """One way to run the gateway; `server` adds keys to that group of its settings."""

    name: str = "gateway"
    redis: RedisState = RedisState.ON
    server: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = True

    def takes(self, scenario: Scenario) -> bool:
        """Takes them all."""
        return bool(scenario)

    def version(self, tools: Tools) -> str:
        """Of this tree."""
        del tools
        return f"hybrid-router {__version__}, redis {self.redis}"

    @contextmanager
    def run(self, site: Site, tools: Tools) -> Iterator[Running]:
        """The gateway and, where it has one, its Redis."""
        del tools
        with ExitStack() as stack:
            redis = None
            if self.redis is not RedisState.OFF:
                redis = stack.enter_context(redis_server(site.folder))
            config = settings_file(site, redis.url if redis else "", self.server)
            running = stack.enter_context(server(_command(config), site))
            _wait_until_serving(site.port)
            if redis is not None and self.redis is RedisState.PAUSED:
                redis.pause()
            if redis is not None and self.redis is RedisState.KILLED:
                redis.kill()
            yield running


VARIANTS = (
    Gateway(),
    Gateway("gateway-no-redis", RedisState.OFF),
    Gateway("gateway-redis-paused", RedisState.PAUSED),
    Gateway("gateway-redis-killed", RedisState.KILLED),
    Gateway("gateway-ordinary-path", server={"fast_path": False}),
)


def settings_file(site: Site, redis_url: str, extra: Mapping[str, Any] | None = None) -> Path:
    """Write the settings into the site's folder; `extra` adds keys to the group `server`."""
    document = {
        "server": {
            "listen": f"127.0.0.1:{site.port}",
            "admin_listen": f"127.0.0.1:{free_port()}",
            "access_log": str(site.folder / "access.log"),
            **(extra or {}),
        },
        "shared_state": {"redis_url": redis_url},
        "models": [_model(name, site) for name in _model_names()],
        "rules": _rules(),
    }
    config = site.folder / "router.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    return config


def _model_names() -> list[str]:
    """The measured model and its neighbours."""
    return [MODEL, *(f"model-{number:02}" for number in range(1, MODELS))]


def _model(name: str, site: Site) -> dict[str, Any]:
    url = f"http://{site.upstream}"
    pool: dict[str, Any] = {
        "kind": "static",
        "urls": [url],
        "concurrency": 10_000,
        "queue": {"max_requests": 10_000, "max_bytes": "512MiB"},
    }
    if name != MODEL:
        # Or the probes of models without traffic would be a load of their own.
        pool["health"] = {"interval": "10s"}
    return {
        "name": name,
        # Long enough that the pool always meets it: the function is weighed and never called.
        "slo": {"latency_ms": 60_000},
        "serverless": {
            "kind": "aws_lambda",
            "function": name,
            "region": "eu-central-1",
            "endpoint_url": url,
        },
        "pool": pool,
    }


def _rules() -> list[dict[str, Any]]:
    """Half are about other models, half look at the request, the last one matches."""
    rules = [
        {"name": f"rule-{number:02}", "match": _condition(number), "route": "pool"}
        for number in range(1, RULES)
    ]
    return [*rules, {"name": "default", "match": {}, "route": "auto"}]


def _condition(number: int) -> dict[str, Any]:
    """One that no benchmark request fulfils."""
    if number % 2:
        return {"model": f"other-{number}-*"}
    conditions: list[dict[str, Any]] = [
        {"header": {"x-priority": f"class-{number}"}},
        {"tenant": [f"tenant-{number}"]},
        {"version": [str(number)]},
        {"payload": ">60MiB"},
    ]
    return conditions[number // 2 % len(conditions)]


def _command(config: Path) -> list[str]:
    program = Path(sys.executable).with_name("hybrid-router")
    return [str(program), "serve", "--config", str(config), "--log-level", "warning"]


def _wait_until_serving(port: int) -> None:
    """Listening is not enough: the probes must have found the replica."""
    probe = BY_NAME["infer-1"]
    give_up_at = time.monotonic() + _READY_S
    while True:
        status, body = exchange(port, "POST", probe.path, probe.body)
        if status == 200:
            return
        if time.monotonic() > give_up_at:
            raise BenchmarkError(f"the gateway does not serve: {status} {body[:300]!r}")
        time.sleep(_POLL_S)
