"""What the gateway is configured with: everything on, and a model for each thing it can do.

50 rules, 100 models, both backends per model (so that every request is steered), metrics, access
log to a file, and a Redis that counters are flushed to. The models that are measured are served by
one process, so that all rows share its run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from router.settings.keys import hash_key
from tests.benchmarks.children import free_port
from tests.benchmarks.scenarios import KEY, Use, model_of
from tests.benchmarks.systems.system import Site

RULES, MODELS = 50, 100

_CONCURRENCY = 10_000
_OTHER = "model-01"
"""The model that gets what canary and shadow send elsewhere."""

_ONLY_FUNCTION = {"route": "serverless"}
_DIVERTING: Mapping[Use, Mapping[str, Any]] = {
    Use.CANARY: {"route": "auto", "canary": {"model": _OTHER, "share": 50}},
    Use.SHADOW: {"route": "auto", "shadow": {"model": _OTHER, "share": 10}},
    Use.FUNCTION: _ONLY_FUNCTION,
    Use.LAMBDA: _ONLY_FUNCTION,
}
"""The rules of measured models, by what they are measured for."""


def settings_file(
    site: Site, redis_url: str, extra: Mapping[str, Any] | None = None, *, keys: bool = False
) -> Path:
    """Write the settings into the site's folder; `extra` adds keys to the group `server`."""
    document: dict[str, Any] = {
        "server": {
            "listen": f"127.0.0.1:{site.port}",
            "admin_listen": f"127.0.0.1:{free_port()}",
            "access_log": str(site.folder / "access.log"),
            **(extra or {}),
        },
        "shared_state": {"redis_url": redis_url},
        "models": [*(_measured(use, site) for use in _uses()), *_neighbours(site)],
        "rules": _rules(),
    }
    if keys:
        document["auth"] = {"api_keys_file": str(_keys_file(site.folder))}
    config = site.folder / "router.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    return config


def _keys_file(folder: Path) -> Path:
    """One key with a rate that no benchmark reaches."""
    limited = {"name": "bench", "sha256": hash_key(KEY), "tenant": "bench", "rate_per_s": 1_000_000}
    file = folder / "keys.json"
    file.write_text(json.dumps([limited]))
    return file


def _uses() -> list[Use]:
    """Those that have a model: one for each model that is measured."""
    return list({model_of(use): use for use in reversed(Use)}.values())


def _measured(use: Use, site: Site) -> dict[str, Any]:
    model = _model(model_of(use), site)
    if use is Use.HEDGE:
        model["hedge"] = {"percentile": 95}
    if use is Use.QUALITY:
        model["quality"] = {"sample": 5}
    if use is Use.FUNCTION:
        model["serverless"] = {
            "kind": "http_function",
            "url": f"http://{site.upstream}",
            "max_concurrency": _CONCURRENCY,
            "price": {"usd_per_request": 0, "usd_per_gb_s": 0.000005},
        }
    return model


def _neighbours(site: Site) -> list[dict[str, Any]]:
    """As many that are not measured that there are MODELS in all."""
    names = [f"model-{number:02}" for number in range(1, MODELS + 1 - len(_uses()))]
    models = [_model(name, site) for name in names]
    for model in models:
        # Or the probes of models without traffic would be a load of their own.
        model["pool"]["health"] = {"interval": "10s"}
    return models


def _model(name: str, site: Site) -> dict[str, Any]:
    url = f"http://{site.upstream}"
    return {
        "name": name,
        # Long enough that the pool always meets it: the function is weighed and never called.
        "slo": {"latency_ms": 60_000},
        "serverless": {
            "kind": "aws_lambda",
            "function": name,
            "region": "eu-central-1",
            "endpoint_url": url,
            "max_concurrency": _CONCURRENCY,
        },
        "pool": {
            "kind": "static",
            "urls": [url],
            "concurrency": _CONCURRENCY,
            "queue": {"max_requests": 10_000, "max_bytes": "512MiB"},
        },
    }


def _rules() -> list[dict[str, Any]]:
    """Half of most are about other models, half look at the request; the last one matches."""
    own = [
        {"name": str(use), "match": {"model": model_of(use)}, **rule}
        for use, rule in _DIVERTING.items()
    ]
    others = [
        {"name": f"rule-{number:02}", "match": _condition(number), "route": "pool"}
        for number in range(1, RULES - len(own))
    ]
    return [*others, *own, {"name": "default", "match": {}, "route": "auto"}]


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
