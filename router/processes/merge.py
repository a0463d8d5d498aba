"""The status documents of one gateway's processes as one document. Pure.

What every process knows alike (sizing, objective, endpoints) is the leader's word; what each
counts for itself is added up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]

_ADDED = ("queued", "captive_requests")
_ADDED_OF_ENDPOINT = ("in_flight", "good_answers", "errors", "set_aside")
_ADDED_OF_FUNCTION = (
    "in_flight", "max_concurrency", "queued", "calls", "cold_calls", "environments_idle",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process, as its parent sees it; `document` is None where it did not answer."""

    number: int
    pid: int | None
    restarts: int
    document: Document | None


def merged_status(processes: Sequence[ProcessState]) -> dict[str, Any]:
    """One status of them all; without any model if none answers."""
    documents = [found.document for found in processes if found.document is not None]
    table = [_process(found) for found in processes]
    if not documents:
        return {"models": [], "processes": table, "in_flight": 0, "connections": 0}
    leader = next((found for found in documents if _leads(found)), documents[0])
    others = [found for found in documents if found is not leader]
    return {
        **leader,
        "models": [_model(model, _named(model["name"], others)) for model in leader["models"]],
        "canaries": [_canary(found, others) for found in leader["canaries"]],
        "shadows": _shadows(documents),
        "config": _config(leader, documents),
        "longest_stall_ms": _longest(found["longest_stall_ms"] for found in documents),
        "draining": all(found["draining"] for found in documents),
        "in_flight": sum(found["in_flight"] for found in documents),
        "connections": sum(found["connections"] for found in documents),
        "processes": table,
    }


def _longest(stalls: Iterable[Mapping[str, float]]) -> dict[str, float]:
    longest: dict[str, float] = {}
    for one in stalls:
        for cause, milliseconds in one.items():
            longest[cause] = max(longest.get(cause, 0.0), milliseconds)
    return longest


def _process(found: ProcessState) -> dict[str, Any]:
    known = found.document or {}
    return {
        "number": found.number,
        "pid": found.pid,
        "restarts": found.restarts,
        "answers": found.document is not None,
        "leader": found.document is not None and _leads(found.document),
        "in_flight": known.get("in_flight", 0),
        "connections": known.get("connections", 0),
    }


def _leads(document: Document) -> bool:
    return bool(document["shared_state"]["leader"])


def _config(leader: Document, documents: Iterable[Document]) -> dict[str, Any]:
    errors = (found["config"]["last_error"] for found in documents)
    return {**leader["config"], "last_error": next(filter(None, errors), None)}


def _named(name: str, documents: Iterable[Document]) -> list[Document]:
    """The status of a model in each process that knows it: a reload may not have reached all."""
    return [model for found in documents for model in found["models"] if model["name"] == name]


def _canary(leading: Document, others: Iterable[Document]) -> dict[str, Any]:
    """Every process judges for itself: shown is one that has rolled back, with all requests."""
    every = [leading]
    for document in others:
        every += [found for found in document["canaries"] if found["rule"] == leading["rule"]]
    shown = next((found for found in every if found["state"] == "rolled_back"), leading)
    window = {
        side: {
            "requests": sum(found["window"][side]["requests"] for found in every),
            "failed": sum(found["window"][side]["failed"] for found in every),
            "p95_ms": max(found["window"][side]["p95_ms"] or 0 for found in every) or None,
        }
        for side in leading["window"]
    }
    return {
        **shown,
        "rolled_back_in": sum(found["state"] == "rolled_back" for found in every),
        "rollbacks": sum(found["rollbacks"] for found in every),
        "window": window,
    }


def _shadows(documents: Iterable[Document]) -> list[dict[str, Any]]:
    """Each shadow once, with the copies of all processes."""
    found: dict[str, dict[str, Any]] = {}
    for shadow in (shadow for document in documents for shadow in document["shadows"]):
        known = found.get(shadow["model"])
        if known is None:
            found[shadow["model"]] = {**shadow}
            continue
        for name in ("in_flight", "bytes_kept"):
            known[name] += shadow[name]
        for name in ("copies", "comparisons"):
            known[name] = _summed([known[name], shadow[name]])
        known["max_difference"] = max(known["max_difference"], shadow["max_difference"])
        known["last_mismatch"] = known["last_mismatch"] or shadow["last_mismatch"]
    return list(found.values())


def _model(leading: Document, others: Sequence[Document]) -> dict[str, Any]:
    every = [leading, *others]
    return {
        **leading,
        **{name: sum(found[name] for found in every) for name in _ADDED},
        "replicas_ready": max(found["replicas_ready"] for found in every),
        "replicas_billed": max(found["replicas_billed"] for found in every),
        "endpoints": _endpoints(every),
        "serverless": _function([found["serverless"] for found in every if found["serverless"]]),
        "recent": _recent([found["recent"] for found in every]),
        **{name: _summed(found[name] for found in every) for name in _COUNTS},
    }


_COUNTS = ("cost_usd", "alternatives_usd", "split", "reasons", "decisions", "rules")


def _recent(every: Sequence[Document]) -> dict[str, Any]:
    """The last minute of all processes; times are those of the slowest."""
    return {
        "requests": sum(found["requests"] for found in every),
        **{name: max(found[name] or 0.0 for found in every) or None for name in _TIMES},
        **{name: _summed(found[name] for found in every) for name in ("reasons", "objective")},
    }


_TIMES = ("p50_ms", "p99_ms")


def _endpoints(models: Iterable[Document]) -> list[dict[str, Any]]:
    """Each endpoint once, with the requests of all processes on it."""
    found: dict[str, dict[str, Any]] = {}
    for endpoint in (endpoint for model in models for endpoint in model["endpoints"]):
        known = found.setdefault(
            endpoint["id"], {**endpoint, **dict.fromkeys(_ADDED_OF_ENDPOINT, 0)}
        )
        for name in _ADDED_OF_ENDPOINT:
            known[name] += endpoint[name]
        known["local"] = known["local"] or endpoint["local"]
    return list(found.values())


def _function(every: Sequence[Document]) -> dict[str, Any] | None:
    if not every:
        return None
    return {
        **every[0],
        "breaker_open": any(found["breaker_open"] for found in every),
        **{name: sum(found[name] for found in every) for name in _ADDED_OF_FUNCTION},
    }


def _summed(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in counts:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return total
