"""The status document of the admin port: the state of every model.

Reads the runtime and changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import msgspec

from router.admission.hedging import Hedging
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.serverless.function import Function
from router.domain.clock import Clock
from router.domain.decision import Backend, Reason
from router.gateway.admin.certificate import described as described_certificate
from router.gateway.admin.deferred import described as described_jobs
from router.gateway.admin.summary import Word, add, by_place_and_reason, model_word
from router.gateway.admin.trials import described
from router.gateway.admin.watching import WatchedQuality
from router.gateway.server import DataPlane
from router.policy.sizing import Level, SizingParams
from router.runtime import GroupRuntime, ModelRuntime, RuntimeRef
from router.settings.masking import mask_url
from router.shadow.counts import ShadowCounts
from router.signals.redis import SharedState
from router.telemetry.labels import StallCause
from router.telemetry.logs import AccessLog
from router.telemetry.readings import JobsReading
from router.telemetry.recent import Recent
from router.turns import Steps


@dataclass(slots=True)
class ReloadState:
    """How the configuration came to be what it is; times are seconds since 1970."""

    loaded_at: float = 0.0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class StatusSources:
    """Where the documents come from."""

    runtime: RuntimeRef
    data: DataPlane
    access_log: AccessLog
    shared_state: SharedState | None
    reloads: ReloadState
    clock: Clock
    wall_clock: Clock
    stalls: Callable[[], Mapping[StallCause, float]]
    decisions: Callable[[], Steps[dict[str, dict[tuple[Backend, Reason], int]]]]
    quality: WatchedQuality
    recent: Recent
    jobs: Callable[[], JobsReading | None] = lambda: None


def status(sources: StatusSources, others: Sequence[Word] = ()) -> Steps[dict[str, Any]]:
    """The answer of `/v1/status`; its models are encoded already.

    What other gateways tell of the models that there are here is added.
    """
    decisions = yield from sources.decisions()
    runtime, models = sources.runtime.current, []
    has_addresses = runtime.shows_addresses
    for model in runtime.models.values():
        shown = _model(
            model, decisions.get(model.name, {}), sources.clock(), has_addresses=has_addresses
        )
        told = [word.models[model.name] for word in others if model.name in word.models]
        if told:
            add(shown, told)
        shown["recent"] = sources.recent.of(model.name, [each.recent.seen for each in told])
        models.append(msgspec.Raw(msgspec.json.encode(shown)))
        yield
    now = sources.clock()
    return {
        "models": models,
        "pools": [
            _group(group, now, has_addresses=has_addresses) for group in runtime.groups.values()
        ],
        "canaries": [described(rule, trial, now) for rule, trial in runtime.trials.items()],
        "shadows": [_shadow(name, counts) for name, counts in shadows_of(sources)],
        "shared_state": shared_state_of(sources, now),
        "config": {
            "hash": runtime.content_hash,
            "loaded_at": sources.reloads.loaded_at,
            "last_error": sources.reloads.last_error,
            "warnings": list(runtime.warnings),
        },
        "certificate": described_certificate(runtime.tls_expires_at, sources.wall_clock()),
        "longest_stall_ms": {
            str(cause): round(longest_s * 1e3, 3) for cause, longest_s in sources.stalls().items()
        },
        "draining": sources.data.is_draining,
        "in_flight": sources.data.in_flight,
        "connections": sources.data.limits.open,
    }


def words_of(sources: StatusSources) -> Steps[list[dict[str, Any]]]:
    """What other gateways are told of each model with requests or a bill."""
    decisions = yield from sources.decisions()
    words, now = [], sources.clock()
    for model in sources.runtime.current.models.values():
        found = decisions.get(model.name)
        # Most models are at rest: what is counted of them is not even looked at.
        if found or model.sizing.warm_idle_usd or model.sizing.kept_warm_usd:
            shown = _model(model, found or {}, now, has_addresses=False)
            words.append(model_word(shown, sources.recent.counts(model.name)))
        yield
    return words


def _model(
    model: ModelRuntime,
    decisions: Mapping[tuple[Backend, Reason], int],
    now: float,
    *,
    has_addresses: bool,
) -> dict[str, Any]:
    pool, function, sizing = model.pool, model.serverless, model.sizing
    return {
        "name": model.name,
        "load_rps": round(sizing.arrivals_per_s, 3),
        "load_replicas": round(sizing.load, 4),
        "replicas_wanted": sizing.wanted,
        "replicas_ready": pool.ready if pool is not None else 0,
        "replicas_billed": billed(model),
        "shared_pool": model.group or None,
        "sizing_reason": sizing.reason,
        "counters": counters(sizing.levels, model.sizing_params, now),
        "startup_s": _startup_s(pool),
        "queued": len(pool.queue) if pool is not None else 0,
        "panicking": pool is not None and pool.is_panicking,
        "sized_by_others": pool is not None and pool.is_sized_by_others,
        "endpoints": [_endpoint(e, now, has_addresses=has_addresses) for e in _endpoints(pool)],
        "serverless": _function(function, now) if function is not None else None,
        "cost_usd": {
            "serverless": function.cost_usd if function is not None else 0.0,
            "warm_busy": sizing.warm_busy_usd,
            "warm_idle": sizing.warm_idle_usd,
            "kept_warm": sizing.kept_warm_usd,
        },
        "alternatives_usd": dict(sizing.alternatives_usd),
        "captive_requests": model.signals.captive,
        "slo": {
            "latency_ms": round(model.policy.slo.latency_s * 1e3, 3),
            "percentile": model.policy.slo.percentile,
        },
        "rules": dict(model.matched),
        "hedge": _hedge(model.hedging),
        "jobs": described_jobs(sizing.deferral),
        **_decisions(decisions),
    }


def _group(group: GroupRuntime, now: float, *, has_addresses: bool) -> dict[str, Any]:
    """A shared pool: its replicas, and which models each has loaded."""
    sizing, pool, known = group.sizing, group.pool, group.residents.known
    return {
        "name": group.name,
        "load_replicas": round(sizing.load, 4),
        "replicas_wanted": sizing.wanted,
        "replicas_ready": pool.ready,
        "replicas_billed": group.driver.billed,
        "sizing_reason": sizing.reason,
        "counters": counters(sizing.levels, group.sizing_params, now),
        "startup_s": _startup_s(pool),
        "endpoints": [
            {
                **_endpoint(one, now, has_addresses=has_addresses),
                "models": sorted(known.get(one.id, ())),
            }
            for one in _endpoints(pool)
        ],
    }


def counters(
    levels: Sequence[Level], params: SizingParams | None, now: float
) -> dict[str, float | None]:
    """How far the sizing's counters are: of the next replica to its start, of the last to its end.

    Both from 0 to 1; None where there is none to be started or stopped.
    """
    if params is None:
        return {"start": None, "stop": None}
    bought = [level for level in levels if level.bought_at is not None]
    others = [level for level in levels if level.bought_at is None]
    start = others[0].counter_usd if others else 0.0
    stop = None
    if bought:
        last = bought[-1]
        assert last.bought_at is not None  # noqa: S101
        stop = 1 - _part_of(last.counter_usd, params.beta_usd(now - last.bought_at))
    full = len(bought) >= params.max_replicas
    return {"start": None if full else _part_of(start, params.beta_usd(0.0)), "stop": stop}


def _part_of(counter_usd: float, beta_usd: float) -> float:
    return round(min(counter_usd / beta_usd, 1.0), 4) if beta_usd > 0 else 0.0


def _hedge(hedging: Hedging | None) -> dict[str, Any] | None:
    if hedging is None:
        return None
    budget = hedging.budget
    return {"budget_left": round(budget.tokens, 2), "refused": budget.exhausted}


def _startup_s(pool: Pool | None) -> float | None:
    """How long replicas took to start, None as long as none was seen to."""
    if pool is None or not pool.startup.count:
        return None
    return round(pool.startup.mean_s, 3)


def _decisions(counts: Mapping[tuple[Backend, Reason], int]) -> dict[str, Any]:
    pairs = {f"{backend}/{reason}": count for (backend, reason), count in counts.items()}
    return {**by_place_and_reason(pairs), "decisions": pairs}


def _endpoints(pool: Pool | None) -> list[Endpoint]:
    return list(pool.endpoints.values()) if pool is not None else []


def _endpoint(endpoint: Endpoint, now: float, *, has_addresses: bool) -> dict[str, Any]:
    times_s = sorted(served_s for _, served_s in endpoint.recent)
    return {
        "id": endpoint.id,
        "address": mask_url(endpoint.address.url) if has_addresses else None,
        "p50_ms": _quantile_ms(times_s, 0.5),
        "p99_ms": _quantile_ms(times_s, 0.99),
        "good_answers": endpoint.good_answers,
        "errors": sum(endpoint.errors.values()),
        "set_aside": endpoint.circuit.opened,
        "why_aside": endpoint.why_aside or None,
        "state": endpoint.state(now),
        "in_flight": endpoint.in_flight,
        "capacity": endpoint.capacity,
        "slots": endpoint.slots,
        "capacity_is_learned": endpoint.limit is not None,
        "local": endpoint.is_local,
    }


def _quantile_ms(times_s: Sequence[float], share: float) -> float | None:
    """Of sorted times, the least that so many are not above; None without any."""
    if not times_s:
        return None
    return round(times_s[ceil(share * len(times_s)) - 1] * 1e3, 3)


def _function(function: Function, now: float) -> dict[str, Any]:
    usual = function.snapshot(1024, now)
    p50_s, p99_s = function.init_times.quantiles((0.5, 0.99))
    return {
        "enabled": usual.enabled,
        "breaker_open": usual.breaker_open,
        "in_flight": usual.in_flight,
        "max_concurrency": usual.max_concurrency,
        "queued": usual.queued,
        "calls": function.calls,
        "cold_calls": function.cold_calls,
        "p_cold": round(usual.p_cold, 4),
        "environments_idle": function.environments.idle(now) + function.kept_free,
        "init_ms": round(usual.init_s * 1e3, 1),
        "init_p50_ms": None if p50_s is None else round(p50_s * 1e3, 1),
        "init_p99_ms": None if p99_s is None else round(p99_s * 1e3, 1),
        "expected_ms": round(usual.expected_s * 1e3, 2),
    }


def shadows_of(sources: StatusSources) -> list[tuple[str, ShadowCounts]]:
    """The shadows that are configured; requests from before a reload may still count for others."""
    models = sources.runtime.current.models
    return [found for found in sources.data.shadows.counts.items() if found[0] in models]


def _shadow(name: str, counts: ShadowCounts) -> dict[str, Any]:
    return {
        "model": name,
        "in_flight": counts.in_flight,
        "bytes_kept": counts.bytes.held,
        "copies": counts.copies,
        "comparisons": counts.comparisons,
        "max_difference": counts.max_difference,
        "last_mismatch": counts.last_mismatch,
    }


def shared_state_of(sources: StatusSources, now: float) -> dict[str, Any]:
    """How the gateway knows of others."""
    shared = sources.shared_state
    if shared is None:
        return {"mode": "in_process", "degraded": False, "leader": True, "peers": 0}
    staleness_s = sources.runtime.current.settings.shared_state.staleness_s
    snapshot = shared.snapshot
    return {
        "mode": "redis",
        "degraded": snapshot.stale(now, staleness_s),
        "leader": snapshot.is_leader,
        "peers": len(snapshot.peers),
        "age_s": round(now - snapshot.taken_at, 3),
    }


def billed(kept: ModelRuntime | GroupRuntime) -> int:
    """Replicas that cost money now."""
    return kept.driver.billed if kept.driver is not None else 0
