"""Settings of a shared pool to its objects, and each model's places in it. Starts nothing.

As for a model's own pool, a reload keeps replicas, queues and learned times.
"""

from dataclasses import replace

from router.assembly.pools import (
    Owner,
    PoolParts,
    assemble_pool,
    owner_of,
    pool_params,
    sizing_params,
)
from router.backends.pool.caller import PoolCaller
from router.backends.pool.group import Group, HostPool, MemberPool
from router.backends.pool.model_repository import ModelRepository
from router.backends.pool.residents import ResidencyParams, Residents
from router.runtime import GroupRuntime, SizingState
from router.settings.schema import ModelSettings, Settings

_LOAD_WITHIN_S = 60.0
"""A load takes this long at least before it counts as failed."""


def assemble_group(
    name: str,
    models: tuple[ModelSettings, ...],
    settings: Settings,
    parts: PoolParts,
    old: GroupRuntime | None,
) -> GroupRuntime:
    """The pool that these models share, without their places (see `member_of`)."""
    pool = settings.pools[name]
    owner = Owner(name, pool, served_as=None, version=None, is_last_resort=False)
    own = assemble_pool(owner, settings, parts, old, HostPool)
    params = ResidencyParams(pool.model_memory_bytes, settings.server.drain_timeout_s)
    if old is not None and own.pool is old.pool:
        members, residents = old.members, old.residents
        residents.params = params
    else:
        members = Group(own.pool)
        load_s = max(_LOAD_WITHIN_S, *(10 * model.sharing.load_s for model in models))
        repository = ModelRepository(parts.upstream, pool.health.timeout_s, load_s)
        residents = Residents(members, repository, params, parts.clock)
    return GroupRuntime(
        name=name,
        settings=pool,
        pool=own.pool,
        driver=own.driver,
        prober=own.prober,
        source=own.source,
        members=members,
        residents=residents,
        sizing=old.sizing if old is not None else SizingState(),
        sizing_params=sizing_params(pool),
    )


def member_of(group: GroupRuntime, model: ModelSettings, parts: PoolParts) -> MemberPool:
    """The model's places on the group's replicas."""
    owner = owner_of(model)
    # What is not loaded anywhere can be, even where the replicas' number is fixed.
    params = replace(pool_params(owner), can_start=True, startup_s=model.sharing.load_s)
    caller = PoolCaller(parts.upstream, owner.pool.timeouts.connect_s)
    member = group.members.members.get(model.name)
    if member is None:
        member = MemberPool(model.name, params, caller, parts.clock, parts.rng, group.members)
        group.members.members[model.name] = member
    member.reconfigure(params)
    member.caller = caller
    sharing = model.sharing
    member.share(model.backend_name, sharing.memory_bytes, sharing.max_concurrency)
    return member
