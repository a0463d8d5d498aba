"""The quality of all models as a document: what `/v1/quality` answers, and reports show. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from router.policy.canary import Side
from router.quality.drift import Alarm, index_of, shares, tested
from router.quality.evidence import chance, log_evidence, surely_within
from router.quality.monitor import Monitor
from router.quality.rollout import Rollout
from router.quality.scores import Metric, Scores, metrics, share_of
from router.quality.sharing import latest_of, sides_of
from router.quality.subject import HOUR_S, Subject
from router.quality.summary import merged_sides
from router.quality.words import SubjectForm, WordForm, losses_of, name_of

_SURE = 0.95


def document(monitor: Monitor, model: str | None = None) -> dict[str, Any]:
    """All that is known, of one model or of all."""
    words = list(monitor.peers.values())
    models: dict[str, list[dict[str, Any]]] = {}
    for (name, version), subject in monitor.subjects.items():
        if model in {None, name}:
            said = _said(words, name, version)
            models.setdefault(name, []).append(_version(version, subject, said))
    return {
        "gateways": 1 + len(words),
        "models": [{"name": name, "versions": found} for name, found in models.items()],
        "canaries": [_rollout(rule, rollout, words) for rule, rollout in monitor.rollouts.items()],
    }


def _said(words: Iterable[WordForm], model: str, version: str) -> list[SubjectForm]:
    return [
        form
        for word in words
        for form in word.subjects
        if (form.model, form.version) == (model, version)
    ]


def _version(version: str, subject: Subject, said: list[SubjectForm]) -> dict[str, Any]:
    baseline = subject.baseline
    latest, gateways = latest_of(subject, said)
    by_side = sides_of(subject, said)
    return {
        "version": version,
        "samples": subject.samples + sum(form.samples for form in said),
        "baseline": None
        if baseline is None
        else {
            "source": baseline.source,
            "made_at": _time(baseline.made_at),
            "samples": baseline.samples,
            "name": name_of(baseline),
        },
        "learned": subject.learned if baseline is None else None,
        "looks": subject.window.looks if subject.window is not None else 0,
        "window_gateways": gateways,
        "drifting": sorted({*subject.drifting, *(name for form in said for name in form.drifting)}),
        "features": []
        if baseline is None
        else [
            {
                "name": name,
                "psi": round(index_of(known, latest[name]), 4),
                "tests": {
                    test: {"statistic": _figure(found.statistic), "p": _figure(found.p)}
                    for test, found in tested(known, latest[name])
                },
                "baseline": shares(known.bins, known.counts),
                "now": shares(known.bins, latest[name]),
            }
            for name, known in baseline.features.items()
            if name in latest
        ],
        "alarms": [_alarm(alarm) for alarm in reversed(subject.alarms)],
        "changes": [
            {"at": _time(change.at), "stream": change.stream, "mean": _figure(change.mean)}
            for change in reversed(subject.changes)
        ],
        "accuracy": _metrics(merged_sides(by_side)),
        "by_side": {side or "all": _metrics(scores) for side, scores in by_side.items()},
        "by_tenant": {tenant: _short(each) for tenant, each in subject.by_tenant.items()},
        "by_hour": [
            {"from": _time(hour * HOUR_S), **(_short(each) or {})}
            for hour, each in sorted(subject.by_hour.items())
        ],
    }


def _rollout(rule: str, rollout: Rollout, words: Iterable[WordForm]) -> dict[str, Any]:
    others = losses_of(words, rule, rollout.epoch)
    losses = rollout.together(others)
    evidence = log_evidence(losses[Side.STABLE], losses[Side.CANARY], rollout.margin or 0.0)
    shown = {}
    for side, found in losses.items():
        low, high = surely_within(found, 1 - _SURE)
        shown[side] = {
            "labels": found.count,
            "wrong": _figure(found.mean) if found.count else None,
            "between": [_figure(low), _figure(high)],
            "samples": rollout.samples[side],
        }
    return {"rule": rule, "sides": shown, "margin": rollout.margin, "p": _figure(chance(evidence))}


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {
        "at": _time(alarm.at),
        "feature": alarm.feature,
        "test": alarm.test,
        "statistic": _figure(alarm.statistic),
        "p": _figure(alarm.p),
        "psi": round(alarm.psi, 4),
        "samples": alarm.samples,
        "baseline_samples": alarm.baseline_samples,
        "baseline": alarm.baseline,
        "now": alarm.now,
        "text": alarm.text,
    }


def _metrics(scores: Scores) -> Mapping[str, Any]:
    return {name: _metric(metric) for name, metric in metrics(scores).items()}


def _short(scores: Scores) -> dict[str, Any] | None:
    return _metric(share_of(scores.rewards)) if scores.rewards.count else None


def _metric(metric: Metric) -> dict[str, Any]:
    value, low, high, count = metric
    return {
        "value": _figure(value),
        "low": _figure(low),
        "high": _figure(high),
        "labels": count,
    }


def _figure(value: float) -> float:
    return float(f"{value:.6g}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
