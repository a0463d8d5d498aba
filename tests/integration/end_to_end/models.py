"""Settings for gateways over small generated models, priced so that things happen in seconds."""

from pathlib import Path
from typing import Any

from tests.fakes.models import write_identity, write_mlp, write_slow


def write_models(repository: Path) -> Path:
    """`mlp` (light, batching), `slow` (as slow as its input says), `echo` (any size)."""
    write_mlp(repository, "mlp", options={"batching": {"max_batch": 8, "max_delay_ms": 1}})
    write_slow(repository, "slow")
    write_identity(repository, "echo")
    return repository


def model(name: str, **changes: Any) -> dict[str, Any]:
    """A model on both backends; a replica pays from about ten light requests per second."""
    base: dict[str, Any] = {
        "name": name,
        "slo": {"latency_ms": 2000},
        "serverless": {
            "kind": "local",
            "max_concurrency": 4,
            "service_time_ms": 10,
            "price": {"usd_per_request": 1e-6, "usd_per_gb_s": 1e-6},
        },
        "pool": {
            "kind": "process",
            "max_replicas": 1,
            "concurrency": 4,
            "price_per_replica_hour": 0.036,
            "startup": "1s",
            "min_billing": "1s",
            "service_time_ms": 10,
            "health": {"interval": "200ms", "timeout": "2s"},
        },
    }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            base[key] = {**base[key], **value}
        elif value is None:
            base.pop(key)
        else:
            base[key] = value
    return base


def settings(repository: Path, *models: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole configuration."""
    return {
        "server": {"backend_hint": "allow"},
        "workers": {"repository": str(repository), "log": "workers.log"},
        "controller": {"interval": "200ms", "window": "1s"},
        "models": list(models),
        **more,
    }
