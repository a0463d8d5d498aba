"""What a configuration asks for that a replay does not simulate: its figures leave it out."""

from collections.abc import Iterator

from router.settings.pools import PoolSettings
from router.settings.schema import ModelSettings, Settings


def not_simulated(settings: Settings) -> list[str]:
    """A line for each such thing, in words that name the settings."""
    told = [line for model in settings.models for line in _of_model(model)]
    for rule in settings.rules:
        if rule.canary is not None:
            told.append(f"rule {rule.name}: canary (the stable version gets all requests)")
        if rule.shadow is not None:
            told.append(f"rule {rule.name}: shadow (its copies cost nothing here)")
        if rule.priority is not None:
            told.append(f"rule {rule.name}: priority (queues are first come, first served)")
    return told


def _of_model(model: ModelSettings) -> Iterator[str]:
    if model.fallback:
        yield f"model {model.name}: fallback (refused requests stay refused)"
    if model.hedge is not None:
        yield f"model {model.name}: hedge (no second attempts, and none of their cost)"
    if model.pool is not None:
        yield from _of_pool(model.name, model.pool)


def _of_pool(name: str, pool: PoolSettings) -> Iterator[str]:
    if pool.group:
        yield f"model {name}: pool: {pool.group} (its replicas are the model's alone here)"
    if pool.adaptive is not None:
        yield f"model {name}: pool.adaptive (concurrency stays as configured)"
