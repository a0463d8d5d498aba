"""The metric families of one worker process, in an injected registry.

Labels are served model names and HTTP status codes, both bounded; never text from a request.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

UNKNOWN_MODEL: Final = ""
CLIENT_GONE: Final = 499
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


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
        self.request_seconds = Histogram(
            "worker_request_seconds",
            "From the request's head to its reply.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "worker_queue_seconds",
            "Waiting for a run, batching delay included.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.run_seconds = Histogram(
            "worker_run_seconds",
            "The model's run, for the whole batch.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "worker_batch_rows",
            "Rows that ran together, as seen by each request.",
            ["model"],
            buckets=_ROWS,
            registry=registry,
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
        """The same families with the model's label filled in; keep the result."""
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
    def _histograms(self) -> Sequence[Histogram]:
        families = (
            self._metrics.queue_seconds,
            self._metrics.run_seconds,
            self._metrics.batch_rows,
        )
        return [family.labels(self._model) for family in families]

    @cached_property
    def _request_seconds(self) -> Histogram:
        return self._metrics.request_seconds.labels(self._model)

    def record_request(self, code: int, elapsed_s: float) -> None:
        """One request that ended."""
        counter = self._codes.get(code)
        if counter is None:
            counter = self._codes[code] = self._metrics.requests.labels(self._model, str(code))
        counter.inc()
        self._request_seconds.observe(elapsed_s)

    def record_run(self, queue_s: float, run_s: float, rows: int) -> None:
        """One request's share in a run."""
        for histogram, value in zip(self._histograms, (queue_s, run_s, rows), strict=True):
            histogram.observe(value)
