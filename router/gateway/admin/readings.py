"""What metrics show of the present state, read when they are scraped. Changes nothing."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeVar

from router.backends.pool.endpoint import EndpointState
from router.backends.pool.endpoints import Pool
from router.backends.serverless.function import Function
from router.domain.decision import Backend
from router.gateway.admin.status import StatusSources, billed, shadows_of, shared_state_of
from router.gateway.admin.trials import canary_readings
from router.runtime import GroupRuntime, ModelRuntime
from router.shadow.counts import ComparisonResult, CopyResult
from router.telemetry.readings import Readings, ShadowReading
from router.turns import Steps

R = TypeVar("R", CopyResult, ComparisonResult)


def _told(counts: Mapping[R, int]) -> dict[str, int]:
    return {str(result): count for result, count in counts.items()}


def readings(sources: StatusSources) -> Steps[Readings]:
    """What metrics show of the present state."""
    runtime, found = sources.runtime.current, _Found()
    for model in runtime.models.values():
        found.read(model, sources.clock())
        yield
    for group in runtime.groups.values():
        found.read_replicas(group, group.pool, sources.clock())
    now, shared, clients = sources.clock(), sources.shared_state, sources.data.limits
    return Readings(
        **found.by_model,
        tasks=len(asyncio.all_tasks()),
        certificate_expires_at=runtime.tls_expires_at,
        signals_degraded=bool(shared_state_of(sources, now)["degraded"]),
        shared_state_peers=len(shared.snapshot.peers) if shared is not None else 0,
        flushes_ok_total=shared.flushes_ok if shared is not None else 0,
        flushes_failed_total=shared.flushes_failed if shared is not None else 0,
        dropped_records_total=shared.dropped_records if shared is not None else 0,
        dropped_log_lines_total=sources.access_log.dropped_lines,
        body_bytes_buffered=sources.data.bodies.held_bytes,
        connections=clients.open,
        connections_accepted_total=clients.accepted,
        connections_refused_total=clients.refused,
        handshakes_failed_total=clients.handshakes_failed,
        waits_timed_out_total={str(wait): count for wait, count in clients.timed_out.items()},
        jobs=sources.jobs(),
        canaries=canary_readings(runtime.trials),
        quality=sources.quality.reading(),
        shadows=[
            ShadowReading(name, _told(found.copies), _told(found.comparisons), found.max_difference)
            for name, found in shadows_of(sources)
        ],
    )


class _Found:
    """What is read of one model after the other: fields of `Readings` by model."""

    def __init__(self) -> None:
        self.by_model: defaultdict[str, dict[Any, Any]] = defaultdict(dict)

    def read(self, model: ModelRuntime, now: float) -> None:
        if model.serverless is not None:
            self._read_function(model.name, model.serverless, now)
        if model.pool is not None:
            self._read_pool(model, model.pool, now)

    def _read_function(self, name: str, function: Function, now: float) -> None:
        key, found = (name, Backend.SERVERLESS), self.by_model
        found["in_flight"][key] = function.in_flight
        found["queue_depth"][key] = len(function.queue)
        found["breaker_open"][key] = function.circuit.is_open(now)

    def _read_pool(self, model: ModelRuntime, pool: Pool, now: float) -> None:
        name, found = model.name, self.by_model
        key = (name, Backend.POOL)
        found["in_flight"][key] = pool.in_flight
        found["queue_depth"][key] = len(pool.queue)
        found["delayed_by_jobs_total"][name] = pool.delayed_by_jobs
        # A pool's circuits are per endpoint: it is open when none is left.
        found["breaker_open"][key] = bool(pool.endpoints) and pool.ready == 0
        self.read_replicas(model, pool, now)

    def read_replicas(self, kept: ModelRuntime | GroupRuntime, pool: Pool, now: float) -> None:
        """What is told of a pool's endpoints, under the name of its model or its own."""
        name, found = kept.name, self.by_model
        found["replicas_wanted"][name] = kept.sizing.wanted
        found["replicas_ready"][name] = pool.ready
        found["replicas_billed"][name] = billed(kept)
        found["pool_slots"][name] = pool.slots
        found["pool_panicking"][name] = pool.is_panicking
        found["sized_by_others"][name] = pool.is_sized_by_others
        found["ejections_total"][name] = pool.ejections
        states = found["endpoints"]
        states.update(((name, state), 0) for state in EndpointState)  # also where none is
        for endpoint in pool.endpoints.values():
            states[name, endpoint.state(now)] += 1
