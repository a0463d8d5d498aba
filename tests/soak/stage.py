"""What a soak runs: a gateway with keys and shared state in front of three models.

`m` has four replicas; `mlp` the local function host and a worker process; `far` a function called
by URL and a replica that never fails. So whatever one place has, a request has another to go to.
"""

import json
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from router.settings.keys import hash_key
from tests.fakes.valkey import ValkeyProcess
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, write_models
from tests.soak.replicas import SERVICE_S, Function, Replica

REPLICAS = 4
CONCURRENCY = 4
OBJECTIVE_S = 3.0
KEY = "the key of the clients that must be served"
GUEST = "the key of a guest who may be shown out"
_REMEMBERED = 50
_FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}
_TIMEOUTS = {"connect": "500ms", "response": "1400ms"}
_HEALTH = {"interval": "250ms", "timeout": "1s", "unhealthy_after": 2}


@dataclass
class Stage:
    """What runs, and what is wrong with it now. `violations` are promises seen broken."""

    gateway: GatewayProcess
    replicas: list[Replica]
    function: Function
    redis: ValkeyProcess
    settings: dict[str, Any]
    troubles: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    stalled_s: float = 0.0
    _now: Counter[str] = field(default_factory=Counter)
    _past: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def address(self) -> tuple[str, int]:
        """Of the data port."""
        parts = urlsplit(self.gateway.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @contextmanager
    def trouble(self, name: str) -> Iterator[None]:
        """Count and remember a trouble that lasts as long as the block."""
        self.troubles[name] += 1
        self._now[name] += 1
        try:
            yield
        finally:
            self._now[name] -= 1
            self._past.append((name, time.monotonic()))

    def during(self, since: float) -> str:
        """The troubles that there are now or were at that time or later."""
        ended = [name for name, at in self._past if at >= since]
        return ", ".join([*(+self._now), *ended]) or "no trouble"

    def write_keys(self, *, guest: bool) -> None:
        """Keys with or without the guest's."""
        keys = [{"name": "client", "sha256": hash_key(KEY), "tenant": "clients"}]
        if guest:
            keys.append({"name": "guest", "sha256": hash_key(GUEST), "tenant": "guests"})
        (self.gateway.folder / "keys.yaml").write_text(yaml.safe_dump(keys))


def config(
    replicas: list[Replica], steady: Replica, function: Function, repository: Path, redis_url: str
) -> dict[str, Any]:
    """The gateway's settings."""
    pool = {
        "kind": "static",
        "concurrency": CONCURRENCY,
        "service_time_ms": SERVICE_S * 1e3,
        "timeouts": _TIMEOUTS,
        "health": _HEALTH,
        "price_per_replica_hour": 0.05,
    }
    slo = {"latency_ms": OBJECTIVE_S * 1e3}
    far = {"kind": "http_function", "url": function.url, "price": _FREE, "timeout": "2s"}
    local = model("mlp", pool={"min_replicas": 1, "timeouts": _TIMEOUTS, "health": _HEALTH})
    both = {"route": {"serverless": 50, "pool": 50}}
    return {
        "server": {"access_log_sample": 0},
        "auth": {"api_keys_file": "keys.yaml"},
        "shared_state": {"redis_url": redis_url, "staleness": "500ms"},
        "workers": {"repository": str(repository), "log": "workers.log"},
        "models": [
            {"name": "m", "slo": slo, "pool": {**pool, "urls": [each.url for each in replicas]}},
            local,
            {"name": "far", "slo": slo, "serverless": far, "pool": {**pool, "urls": [steady.url]}},
        ],
        "rules": [
            {"name": "m", "match": {"model": "m"}, "route": "auto"},
            {"name": "both", "match": {}, **both},
        ],
    }


def mlp_body() -> bytes:
    """A request that the worker of `mlp` can answer."""
    tensor = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [0.5] * 8}
    return json.dumps({"inputs": [tensor]}).encode()


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """Everything running; it is gone after the block, and the gateway has ended in good order."""
    async with AsyncExitStack() as stack:
        replicas = [Replica() for _ in range(REPLICAS + 1)]
        function = Function()
        servers: tuple[Replica | Function, ...] = (*replicas, function)
        for each in servers:
            await each.start()
            stack.push_async_callback(each.stop)
        redis = ValkeyProcess(folder / "valkey")
        redis.start()
        stack.callback(redis.stop)
        *failing, steady = replicas
        repository = write_models(folder / "models")
        settings = config(failing, steady, function, repository, redis.url)
        gateway = GatewayProcess(folder / "gateway", settings)
        gateway.folder.mkdir()
        stage = Stage(gateway, failing, function, redis, settings)
        stage.write_keys(guest=True)
        stack.callback(gateway.ensure_gone)
        gateway.start()
        yield stage
        status = gateway.stop()
        assert status == 0, f"the gateway ended with status {status}"
