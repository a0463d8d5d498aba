"""The gateway as its users run it: `hybrid-router serve` with everything on.

What it is configured with is in `gateway_settings`.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from router import __version__
from tests.benchmarks.children import BenchmarkError, exchange
from tests.benchmarks.scenarios import BY_NAME, Scenario, Use
from tests.benchmarks.systems.gateway_settings import settings_file
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.systems.valkey import redis_server
from tests.benchmarks.tools import Tools

_READY_S = 20.0
_POLL_S = 0.05
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example"}
"""Calls of AWS Lambda are signed with them; nobody checks the signature."""


class RedisState(StrEnum):
    """What the shared state is like during a run."""

    ON = "on"
    OFF = "off"
    PAUSED = "paused"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Gateway:
    """One way to run the gateway; `server` adds keys to that group of its settings.

    With `keys` it lets in only who has one.
    """

    name: str = "gateway"
    redis: RedisState = RedisState.ON
    server: Mapping[str, Any] = field(default_factory=dict)
    keys: bool = False
    is_exact: bool = True

    def takes(self, scenario: Scenario) -> bool:
        """Each request is measured with one of them, the basic ones with all that need no key."""
        if self.keys or scenario.use is Use.KEY:
            return self.keys and scenario.use is Use.KEY
        return scenario.is_basic or self == Gateway()

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
            config = settings_file(site, redis.url if redis else "", self.server, keys=self.keys)
            running = stack.enter_context(server(_command(config), site, _CREDENTIALS))
            _wait_until_serving(site.port)
            if redis is not None and self.redis is RedisState.PAUSED:
                redis.pause()
            if redis is not None and self.redis is RedisState.KILLED:
                redis.kill()
            yield running


VARIANTS = (
    Gateway(),
    Gateway("gateway-keys", keys=True),
    Gateway("gateway-no-redis", RedisState.OFF),
    Gateway("gateway-redis-paused", RedisState.PAUSED),
    Gateway("gateway-redis-killed", RedisState.KILLED),
    Gateway("gateway-ordinary-path", server={"fast_path": False}),
)


def _command(config: Path) -> list[str]:
    program = Path(sys.executable).with_name("hybrid-router")
    return [str(program), "serve", "--config", str(config), "--log-level", "warning"]


def _wait_until_serving(port: int) -> None:
    """Listening is not enough: the probes must have found the replica."""
    probe = BY_NAME["key-32"]
    give_up_at = time.monotonic() + _READY_S
    while True:
        status, body = exchange(port, "POST", probe.path, probe.body, lines=probe.lines)
        if status == 200:
            return
        if time.monotonic() > give_up_at:
            raise BenchmarkError(f"the gateway does not serve: {status} {body[:300]!r}")
        time.sleep(_POLL_S)
