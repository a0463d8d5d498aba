"""The router's metrics: plain additions on the request path, Prometheus only at scrape time.

Decides which label values may exist: enums, and the names of configured models. Anything said
about another model counts under the empty name, so clients cannot create series.
"""

import platform
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from router.domain.decision import Backend, Outcome, Reason
from router.domain.spent import Spent
from router.domain.tokens import Tokens
from router.telemetry import families
from router.telemetry.exposition import (
    BOUNDS,
    Buckets,
    Exemplar,
    Labels,
    Snapshot,
    collect,
)
from router.telemetry.families import BUCKETS_S, FAMILIES, Kind
from router.telemetry.labels import (
    Alternative,
    AttemptResult,
    CostPart,
    HedgeResult,
    ObjectiveResult,
    SpanResult,
    StallCause,
    objective_results,
)
from router.telemetry.readings import Readings, counter_series, gauge_series
from router.telemetry.text import TextFormat
from router.turns import Steps, at_once

T = TypeVar("T")
R = TypeVar("R")
FloatArray = NDArray[np.float64]

_PLACES = ("", *Backend)
_BUCKETS = np.array(BUCKETS_S)
_STEP = 100
"""Series that are looked at before something else may have its turn."""


def build_info(version: str) -> dict[str, str]:
    """What runs here: the labels of the family that says so."""
    return {"version": version, "python": platform.python_version()}


Seen = tuple[str, str | int]
"""What is counted of a request: part (reasons, objective, took), and which of it."""


class Objective(NamedTuple):
    """What a model's answers are measured by; with `cold_allowed`, but for cold starts."""

    latency_s: float
    ratio: float
    cold_allowed: bool = True


class _Histogram:
    """Observations in seconds, counted by bucket."""

    __slots__ = ("counts", "exemplars", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * len(BOUNDS)
        self.total_s = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value_s: float) -> None:
        self.counts[bisect_left(BUCKETS_S, value_s)] += 1
        self.total_s += value_s

    def observe_all(self, values_s: FloatArray) -> None:
        places = np.searchsorted(_BUCKETS, values_s)
        for place, number in enumerate(np.bincount(places).tolist()):
            self.counts[place] += number
        self.total_s += float(values_s.sum())

    def buckets(self) -> Buckets:
        return Buckets(tuple(self.counts), self.total_s, dict(self.exemplars))


class ModelCounts(NamedTuple):
    """What has been counted of one model's requests since the process began.

    `total_s` is the time that all of them took; `waits` are those that had to wait for a slot, and
    `attempts` what was tried at backends.
    """

    succeeded: int
    failed: int
    total_s: float
    waits: int
    waited_s: float
    attempts: int
    attempts_s: float


def no_readings() -> Steps[Readings]:
    """Nothing is the case."""
    yield
    return Readings()


class Metrics(Collector):
    """Records what happened; `readings` is asked at every scrape for what is the case.

    `catch_up` is called before anything is read: whoever records late records it then.

    The methods must be called on the event loop's thread, and none of them waits.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        version: str,
        readings: Callable[[], Steps[Readings]] = no_readings,
        catch_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.readings = readings
        self.catch_up = catch_up
        self.build = build_info(version)
        self._models: frozenset[str] = frozenset()
        self._objectives: Mapping[str, Objective] = {}
        self._callers: Mapping[str, str] = {}
        self._budgets: Mapping[Labels, float] = {}
        self._tenants: frozenset[str] = frozenset()
        self._last_reload: tuple[bool, float] = (False, 0.0)
        self._counters: dict[str, defaultdict[Labels, float]] = {
            family.name: defaultdict(float) for family in FAMILIES if family.kind is Kind.COUNTER
        }
        self._histograms: dict[str, defaultdict[Labels, _Histogram]] = {
            family.name: defaultdict(_Histogram)
            for family in FAMILIES
            if family.kind is Kind.HISTOGRAM
        }
        # Looked up once: these are used for every request.
        self._requests = self._counters[families.REQUESTS.name]
        self._decisions = self._counters[families.DECISIONS.name]
        self._attempts = self._counters[families.ATTEMPTS.name]
        self._by_tenant = self._counters[families.TENANT_REQUESTS.name]
        self._by_objective = self._counters[families.OBJECTIVE_REQUESTS.name]
        self._request_durations = self._histograms[families.REQUEST_DURATION.name]
        self._attempt_durations = self._histograms[families.ATTEMPT_DURATION.name]
        self._stalls = self._histograms[families.LOOP_STALL.name]
        self._overheads = self._histograms[families.GATEWAY_OVERHEAD.name]
        self._counters[families.RETRY_BUDGET_EXHAUSTED.name][()] = 0
        for result in ("ok", "failed"):
            self._counters[families.CONFIG_RELOADS.name][result,] = 0
        registry.register(self)

    def configure(
        self,
        models: Iterable[str],
        objectives: Mapping[str, Objective] = {},
        callers: Mapping[str, str] = {},
        budgets: Mapping[Labels, float] = {},
    ) -> None:
        """Make these the only names that may be labels; `forgetting` ends the others' series.

        `objectives` is by model, `callers` has the tenants by the name of their keys, `budgets` the
        USD that tenants mean to spend, by tenant and period.
        """
        self.catch_up()
        self._budgets = budgets
        before, self._models = self._models, frozenset(models)
        self._objectives = objectives
        self._callers, self._tenants = callers, frozenset(callers.values())
        # A counter that starts at its first increment hides that increment from rate().
        for model in self._models - before:
            for family in (families.COLD_STARTS, families.RETRIES):
                self._counters[family.name][model,] += 0
            for part in CostPart:
                self._counters[families.COST.name][model, part] += 0
            for result in ObjectiveResult:
                self._by_objective[model, result] += 0

    def forgetting(self) -> Steps[None]:
        """End the series of models, tenants and keys that there are no more."""
        for family in FAMILIES:
            if family.has_model or family.has_caller:
                names = self._models if family.has_model else self._tenants | self._callers.keys()
                yield from _forgetting(self._counters.get(family.name, {}), names)
                yield from _forgetting(self._histograms.get(family.name, {}), names)

    def record_request(
        self,
        model: str,
        backend: Backend | None,
        outcome: Outcome,
        total_s: float,
        overhead_s: float,
    ) -> None:
        """Count a request that ended; `backend` is None when none was chosen."""
        name = self._label(model)
        where = backend or ""
        self._requests[name, where, outcome] += 1
        self._request_durations[name, where].observe(total_s)
        self._overheads[name,].observe(overhead_s)

    def exemplify(self, model: str, backend: str, total_s: float, trace_id: str) -> None:
        """Name a trace that is kept beside the requests that took as long as that one."""
        histogram = self._request_durations[self._label(model), backend]
        histogram.exemplars[bisect_left(BUCKETS_S, total_s)] = trace_id, total_s

    def record_caller(
        self, tenant: str, model: str, outcome: Outcome, took_s: float, *, is_cold: bool = False
    ) -> None:
        """Count a request for its tenant, and against the model's objective.

        `took_s` is without what the client kept the gateway waiting for; `is_cold` says that it had
        to wait for a cold start.
        """
        self._by_tenant[self._tenant(tenant), outcome] += 1
        results, objective = objective_results(outcome), self._objectives.get(model)
        if results is not None and objective is not None:
            in_time, late = results
            if is_cold and objective.cold_allowed and late is ObjectiveResult.LATE:
                late = ObjectiveResult.COLD
            result = in_time if took_s <= objective.latency_s else late
            self._by_objective[model, result] += 1

    def record_callers(
        self,
        tenant: str,
        model: str,
        outcome: Outcome,
        took_s: FloatArray,
        *,
        is_cold: bool = False,
    ) -> None:
        """As `record_caller` for many requests."""
        if is_cold:  # which are few
            for each in took_s.tolist():
                self.record_caller(tenant, model, outcome, each, is_cold=True)
            return
        number = len(took_s)
        self._by_tenant[self._tenant(tenant), outcome] += number
        results, objective = objective_results(outcome), self._objectives.get(model)
        if results is not None and objective is not None:
            in_time = int(np.count_nonzero(took_s <= objective.latency_s))
            self._by_objective[model, results[0]] += in_time
            self._by_objective[model, results[1]] += number - in_time

    def record_tokens(self, tenant: str, tokens: Tokens) -> None:
        """Count what went into a tenant's language models and what came out."""
        counter, name = self._counters[families.TENANT_TOKENS.name], self._tenant(tenant)
        counter[name, "input"] += tokens.input
        counter[name, "output"] += tokens.output

    def record_refusal(self, key: str, code: str) -> None:
        """Count a request that the gateway answered with that error."""
        name = key if key in self._callers else ""
        self._counters[families.REFUSALS.name][name, code] += 1

    def record_answered(
        self,
        model: str,
        where: Backend,
        reason: Reason,
        outcome: Outcome,
        totals_s: FloatArray,
        upstreams_s: FloatArray,
    ) -> None:
        """Count requests that a first attempt has answered: decision, attempt and end of each.

        Both arrays have one entry for each request.
        """
        name, number = self._label(model), len(totals_s)
        self._decisions[name, where, reason] += number
        self._requests[name, where, outcome] += number
        self._attempts[name, where, AttemptResult.OK] += number
        self._request_durations[name, where].observe_all(totals_s)
        self._overheads[name,].observe_all(totals_s - upstreams_s)
        self._attempt_durations[name, where].observe_all(upstreams_s)

    def record_decision(self, model: str, backend: Backend, reason: Reason) -> None:
        """Count a decision."""
        self._decisions[self._label(model), backend, reason] += 1

    def decisions(self) -> Steps[dict[str, dict[tuple[Backend, Reason], int]]]:
        """How often each backend was chosen, by model, backend and reason."""
        self.catch_up()
        found: defaultdict[str, dict[tuple[Backend, Reason], int]] = defaultdict(dict)
        for some in _batches(self._decisions):
            for (model, backend, reason), count in some:
                found[model][Backend(backend), Reason(reason)] = int(count)
            yield
        return found

    def of_callers(self) -> Steps[dict[str, list[tuple[Labels, float]]]]:
        """What has been counted of tenants and of keys, by family."""
        self.catch_up()
        found = {}
        for family in families.OF_CALLERS:
            found[family.name] = yield from _listed(self._counters[family.name], float)
        return found

    def seen(self) -> Steps[dict[str, Counter[Seen]]]:
        """All that has been counted of each model's requests: why, how long, how well."""
        self.catch_up()
        found: defaultdict[str, Counter[Seen]] = defaultdict(Counter)
        for some in _batches(self._decisions):
            for (model, _, reason), count in some:
                found[model]["reasons", reason] += int(count)
            yield
        for results in _batches(self._by_objective):
            for (model, result), count in results:
                found[model]["objective", result] += int(count)
            yield
        for durations in _batches(self._request_durations):
            for (model, _), taken in durations:
                for place, number in enumerate(taken.counts):
                    found[model]["took", place] += number
            yield
        return found

    def counts(self, model: str) -> ModelCounts:
        """What has been counted of the model."""
        self.catch_up()
        ended = {
            outcome: sum(int(self._requests.get((model, where, outcome), 0)) for where in _PLACES)
            for outcome in Outcome
        }
        durations = self._sum(self._request_durations, *((model, where) for where in _PLACES))
        waits = self._sum(self._histograms[families.QUEUE_WAIT.name], (model,))
        attempts = self._sum(self._attempt_durations, *((model, where) for where in _PLACES))
        succeeded = ended.pop(Outcome.OK)
        return ModelCounts(succeeded, sum(ended.values()), durations[1], *waits, *attempts)

    @staticmethod
    def _sum(series: Mapping[Labels, _Histogram], *labels: Labels) -> tuple[int, float]:
        """How many observations there were, and of how many seconds in all."""
        found = [series[each] for each in labels if each in series]
        return sum(sum(each.counts) for each in found), sum(each.total_s for each in found)

    def record_attempt(
        self, model: str, backend: Backend, result: AttemptResult, duration_s: float
    ) -> None:
        """Count an attempt that ended."""
        name = self._label(model)
        self._attempts[name, backend, result] += 1
        self._attempt_durations[name, backend].observe(duration_s)

    def record_cold_start(self, model: str, init_s: float | None) -> None:
        """Count a cold start; `init_s` is None where the platform does not say how long it took."""
        name = self._label(model)
        self._counters[families.COLD_STARTS.name][name,] += 1
        if init_s is not None:
            self._histograms[families.COLD_START_DURATION.name][name,].observe(init_s)

    def observe_shadow(self, model: str, seconds: float) -> None:
        """Note how long a shadow took to answer."""
        self._histograms[families.SHADOW_DURATION.name][self._label(model),].observe(seconds)

    def observe_stall(self, cause: StallCause, seconds: float) -> None:
        """Note how long something kept the event loop."""
        self._stalls[cause,].observe(seconds)

    def observe_queue_wait(self, model: str, waited_s: float) -> None:
        """Note how long a held request waited, whether or not a slot came."""
        self._histograms[families.QUEUE_WAIT.name][self._label(model),].observe(waited_s)

    def add_cost(self, model: str, part: CostPart, usd: float, tenant: str = "") -> None:
        """Add to a model's estimated bill, and to that of the tenant who pays it.

        Raises ValueError for a negative amount.
        """
        if not usd >= 0:
            raise ValueError(f"cost = {usd}, must be at least 0")
        self._counters[families.COST.name][self._label(model), part] += usd
        self._counters[families.TENANT_COST.name][self._tenant(tenant), part] += usd

    def add_call_cost(self, model: str, tenant: str, spent: Spent) -> None:
        """Add what calls of a model's function have cost a tenant, if anything."""
        if spent.call_usd > 0:
            self.add_cost(model, CostPart.SERVERLESS, spent.call_usd, tenant)
            self.add_gb_s(tenant, spent.gb_s)

    def add_gb_s(self, tenant: str, gb_s: float) -> None:
        """Add memory times billed seconds of a tenant's calls."""
        self._counters[families.TENANT_GB_SECONDS.name][self._tenant(tenant),] += gb_s

    def add_alternative(self, model: str, alternative: Alternative, usd: float) -> None:
        """Add to what a model's requests would have cost on places of one kind only."""
        self._counters[families.ALTERNATIVE_COST.name][self._label(model), alternative] += usd

    def record_retry(self, model: str) -> None:
        """Count a second or later attempt of one request."""
        self._counters[families.RETRIES.name][self._label(model),] += 1

    def record_retry_budget_exhausted(self) -> None:
        """Count a retry that was not made for want of budget."""
        self._counters[families.RETRY_BUDGET_EXHAUSTED.name][()] += 1

    def record_pass_on(self, model: str) -> None:
        """Count a request that the model could not serve and that another one gets."""
        self._counters[families.PASSED_ON.name][self._label(model),] += 1

    def record_hedge(self, model: str, result: HedgeResult) -> None:
        """Count a slow attempt of a model that hedges."""
        self._counters[families.HEDGES.name][self._label(model), result] += 1

    def record_spans(self, result: SpanResult, number: int) -> None:
        """Count spans that were to go to the collector."""
        self._counters[families.SPANS.name][result,] += number

    def record_reload(self, succeeded: bool, at: float) -> None:
        """Count a reading of the configuration, the first included; `at` is seconds since 1970."""
        self._counters[families.CONFIG_RELOADS.name]["ok" if succeeded else "failed",] += 1
        self._last_reload = (succeeded, at if succeeded else self._last_reload[1])

    def expose(self, accept_header: str) -> tuple[bytes, str]:
        """All of it in the best format the scraper accepts, and its content type."""
        text = TextFormat(accept_header)
        return b"".join(text.chunks(self.snapshot(), self.build)), text.content_type

    def collect(self) -> Iterator[Metric]:
        """Every family of FAMILIES, in that order, with or without series."""
        return collect(self.snapshot(), self.build)

    def snapshot(self) -> Snapshot:
        """All series as they are now."""
        return at_once(self.snapshotting())

    def snapshotting(self) -> Steps[Snapshot]:
        """As `snapshot`, in steps; each series is as it was at one of them."""
        self.catch_up()
        readings = yield from self.readings()
        series: dict[str, Mapping[Labels, float]] = {**self._counters}
        for name, read in chain(counter_series(readings), gauge_series(readings)):
            series[name] = read
            yield
        series[families.OBJECTIVE_RATIO.name] = {
            (model,): objective.ratio for model, objective in self._objectives.items()
        }
        series[families.TENANT_BUDGET.name] = self._budgets
        succeeded, at = self._last_reload
        series[families.CONFIG_LAST_RELOAD.name] = {(): succeeded}
        series[families.CONFIG_RELOAD_TIMESTAMP.name] = {(): at}
        values, histograms = {}, {}
        for name, found in series.items():
            values[name] = yield from _listed(found, float)
        for name, counted in self._histograms.items():
            histograms[name] = yield from _listed(counted, _Histogram.buckets)
        return Snapshot(values, histograms)

    def _label(self, model: str) -> str:
        return model if model in self._models else ""

    def _tenant(self, tenant: str) -> str:
        return tenant if tenant in self._tenants else ""


def _forgetting(
    series: dict[Labels, float] | dict[Labels, _Histogram], names: Set[str]
) -> Steps[None]:
    """End those series that are of none of these."""
    for some in _batches(series):
        for labels, _ in some:
            if labels[0] and labels[0] not in names:
                series.pop(labels, None)
        yield


def _batches(series: Mapping[Labels, T]) -> Iterator[Sequence[tuple[Labels, T]]]:
    """The series that there are now, a few at a time; more may come meanwhile."""
    items = iter(list(series.items()))
    while some := list(islice(items, _STEP)):
        yield some


def _listed(
    series: Mapping[Labels, T], value_of: Callable[[T], R]
) -> Steps[list[tuple[Labels, R]]]:
    listed: list[tuple[Labels, R]] = []
    for some in _batches(series):
        listed += [(labels, value_of(value)) for labels, value in some]
        yield
    return listed
