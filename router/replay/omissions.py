"""What a configuration asks for that a replay does not simulate: its figures leave it out."""

from collections.abc import Iterator

from router.settings.functions import AwsLambda, ServerlessSettings
from router.settings.pools import PoolSettings
from router.settings.schema import ModelSettings, Settings


def not_simulated(settings: Settings, *, shares: bool) -> list[str]:
    """A line for each such thing, in words that name the settings.

    `shares` says that models which share a pool do so here, too.
    """
    told = [line for model in settings.models for line in _of_model(model)]
    told += [line for model in settings.models for line in _of_sharing(model, shares=shares)]
    for rule in settings.rules:
        if rule.canary is not None:
            told.append(f"rule {rule.name}: canary (the stable version gets all requests)")
        if rule.shadow is not None:
            told.append(f"rule {rule.name}: shadow (its copies cost nothing here)")
        if rule.priority is not None:
            told.append(f"rule {rule.name}: priority (queues are first come, first served)")
        if rule.match.header:
            told.append(f"rule {rule.name}: match.header (traces tell none, so it never matches)")
    if any(model.pool is not None for model in settings.models):
        told.append("pools: ejection (replicas are all alike, and none fails but by a crash)")
    return told


def _of_model(model: ModelSettings) -> Iterator[str]:
    if model.fallback:
        yield f"model {model.name}: fallback (refused requests stay refused)"
    if model.hedge is not None:
        yield f"model {model.name}: hedge (no second attempts, and none of their cost)"
    if model.serverless is not None and _is_kept_warm(model.serverless):
        yield f"model {model.name}: environments kept warm (all start cold, and none is rented)"
    if model.pool is not None:
        yield from _of_pool(model.name, model.pool)


def _is_kept_warm(function: ServerlessSettings) -> bool:
    return isinstance(function, AwsLambda) and bool(
        function.provisioned_concurrency or function.managed_instances.count
    )


def _of_sharing(model: ModelSettings, *, shares: bool) -> Iterator[str]:
    if model.pool is None or not model.pool.group:
        return
    if not shares:
        yield f"model {model.name}: pool: {model.pool.group} (each model has replicas of its own)"
    elif model.sharing.max_concurrency:
        yield f"model {model.name}: sharing.max_concurrency (it may fill a replica)"


def _of_pool(name: str, pool: PoolSettings) -> Iterator[str]:
    if pool.adaptive is not None:
        yield f"model {name}: pool.adaptive (concurrency stays as configured)"
