"""The metric families of one worker process, in an injected registry.

Labels are served model names and HTTP status codes, both bounded; never text from a request.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

UNKNOWN_MODEL: Final = ""
CLIENT_GONE: Final = 499
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class Distribution:
    """The values of one model, counted by bucket.

    prometheus_client's own costs ten times as much for each value. Belongs to one event loop.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """The counts as the exposition has them: cumulative, by upper bound."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return [*zip(bounds, accumulate(self.counts), strict=True)]


class Distributions(Collector):
    """A histogram family: one distribution for each model."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._models: dict[str, Distribution] = {}
        registry.register(self)

    def of(self, model: str) -> Distribution:
        """The model's; made when first asked for, as its series is."""
        return self._models.setdefault(model, Distribution(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family as it is now."""
        family = HistogramMetricFamily(self._name, self._text, labels=["model"])
        for model, found in self._models.items():
            family.add_metric([model], found.buckets(), found.total)
        yield family


class WorkerMetrics:
    """Every family a worker exports."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.requests = Counter(
            "worker_requests",
            "Inference requests by status code (499: the client went away).",
            ["model", "code"],
            registry=registry,
        )
        self.request_seconds = Distributions(
            "worker_request_seconds", "From the request's head to its reply.", _SECONDS, registry
        )
        self.queue_seconds = Distributions(
            "worker_queue_seconds",
            "Waiting for a run, batching delay included.",
            _SECONDS,
            registry,
        )
        self.run_seconds = Distributions(
            "worker_run_seconds", "The model's run, for the whole batch.", _SECONDS, registry
        )
        self.batch_rows = Distributions(
            "worker_batch_rows", "Rows that ran together, as seen by each request.", _ROWS, registry
        )

    def observe(
        self,
        *,
        in_flight: Callable[[], float],
        queued: Callable[[], float],
        ready: Callable[[], float],
    ) -> None:
        """Add the gauges, which are read when scraped. Call it once."""
        self._gauge("worker_in_flight", "Inference requests accepted and not answered.", in_flight)
        self._gauge("worker_queue_depth", "Inference requests waiting for a run.", queued)
        self._gauge("worker_ready", "1 while the worker takes inferences, else 0.", ready)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(read)

    def for_model(self, model: str) -> "ModelMetrics":
        """The children of one model in all families; keep the result."""
        return ModelMetrics(self, model)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format the scraper asked for."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class ModelMetrics:
    """One model's children, looked up once instead of at every request."""

    def __init__(self, metrics: WorkerMetrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._codes: dict[int, Counter] = {}

    @cached_property
    def _runs(self) -> tuple[Distribution, Distribution, Distribution]:
        metrics, model = self._metrics, self._model
        families = metrics.queue_seconds, metrics.run_seconds, metrics.batch_rows
        queue, run, rows = (family.of(model) for family in families)
        return queue, run, rows

    @cached_property
    def _request_seconds(self) -> Distribution:
        return self._metrics.request_seconds.of(self._model)

    def record_request(self, code: int, elapsed_s: float) -> None:
        """One request that ended."""
        self._counter(code).inc()
        self._request_seconds.observe(elapsed_s)

    def record_alone(self, requests: Sequence[tuple[float, float, int]]) -> None:
        """Requests that were answered without waiting: seconds in all and of the run, rows."""
        self._counter(200).inc(len(requests))
        seconds = self._request_seconds
        queue, run, batches = self._runs
        for elapsed_s, run_s, rows in requests:
            seconds.observe(elapsed_s)
            queue.observe(0.0)
            run.observe(run_s)
            batches.observe(rows)

    def _counter(self, code: int) -> Counter:
        counter = self._codes.get(code)
        if counter is None:
            counter = self._codes[code] = self._metrics.requests.labels(self._model, str(code))
        return counter

    def record_run(self, queue_s: float, run_s: float, rows: int) -> None:
        """One request's share in a run."""
        queue, run, rows_run = self._runs
        queue.observe(queue_s)
        run.observe(run_s)
        rows_run.observe(rows)
