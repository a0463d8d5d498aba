"""Pools that several models share: what a model takes of one, and which combinations cannot work.

A pool in `pools` is like a model's own, but has a name, and models refer to it by that. Pure.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from router.settings.problems import KeyPath
from router.settings.quantities import COUNT, DURATION, GIB, HOUR_S, SIZE, Quantity
from router.settings.section import Section

if TYPE_CHECKING:  # the schema has the settings of this module
    from router.settings.pools import PoolSettings
    from router.settings.schema import ModelSettings, Settings

SHARED_POOLS = "pools"
"""Key of the validation context holding the pools that models may refer to, by name."""


class SharingSettings(Section):
    """What a model takes of the replicas that it shares."""

    memory_bytes: Annotated[int, Quantity(SIZE, 0, 4096 * GIB)] = Field(
        default=0,
        alias="memory",
        description="what it takes of the pool's model_memory; 0: nothing that counts",
    )
    load_s: Annotated[float, Quantity(DURATION, 0.0, HOUR_S)] = Field(
        default=1.0,
        alias="load",
        description="expected time to load it into a replica until it has been measured",
    )
    max_concurrency: Annotated[int, Quantity(COUNT, 0, 10_000)] = Field(
        default=0,
        description="most requests of it that one replica works on at once; 0: as many as of all",
    )


def groups_of(settings: "Settings") -> dict[str, tuple["ModelSettings", ...]]:
    """The models of each shared pool that has any."""
    if not settings.pools:  # a thousand models need not be asked
        return {}
    found: defaultdict[str, list[ModelSettings]] = defaultdict(list)
    for model in settings.models:
        if model.pool is not None and model.pool.group:
            found[model.pool.group].append(model)
    return {name: tuple(models) for name, models in found.items()}


def named(pools: Mapping[str, "PoolSettings"]) -> Mapping[str, "PoolSettings"]:
    """The pools, each knowing its name."""
    for name, pool in pools.items():
        pool.is_shared_as(name)
    return pools


def wrong_sharing(settings: "Settings") -> Iterator[tuple[KeyPath, str]]:
    """What keeps models from sharing their pool, each with its key."""
    names = {model.name for model in settings.models}
    for name, pool in settings.pools.items():
        if name in names:
            yield ("pools", name), "is the name of a model, too: metrics could not tell them apart"
        if pool.adaptive is not None:
            message = "cannot be learned in a shared pool: models differ in how long they take"
            yield ("pools", name, "adaptive"), message
    for index, model in enumerate(settings.models):
        if model.pool is None or not model.pool.group:
            continue
        room = model.pool.model_memory_bytes
        if room and model.sharing.memory_bytes > room:
            message = f"is more than the model_memory of pool {model.pool.group}"
            yield ("models", index, "sharing", "memory"), message
        if model.pool.kind == "process" and model.version is not None:
            message = "has no effect in a shared pool: its workers give the highest version"
            yield ("models", index, "version"), message


def unused_sharing(settings: "Settings") -> Iterator[tuple[KeyPath, str]]:
    """Pools that no model refers to, and models that say what they take of none."""
    used = groups_of(settings)
    for name in settings.pools:
        if name not in used:
            yield ("pools", name), "is not used: no model has pool: " + name
    for index, model in enumerate(settings.models):
        is_shared = model.pool is not None and model.pool.group
        if model.sharing.model_fields_set and not is_shared:
            yield ("models", index, "sharing"), "has no effect: the model shares no pool"
