"""The HTTP front: one request in, one reply out, with admission, batching and drain.

Decides which requests are accepted and what runs off the event loop. What endpoints exist and
how they are answered is `operations`; sockets, signals and flags are `http_server`.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from aiohttp import ClientPayloadError, web
from multidict import istr

from workers.batching import Outcome
from workers.engine import Feeds
from workers.http_connection import to_response
from workers.lanes import ASIDE_BYTES, Answered, Lane, Phases
from workers.metrics import CLIENT_GONE, UNKNOWN_MODEL, ModelMetrics, WorkerMetrics
from workers.operations import (
    CHANGES,
    RUNS,
    Endpoint,
    Operation,
    describe,
    error_reply,
    json_reply,
    match,
    read_infer,
    read_predict,
    write_infer,
    write_predict,
)
from workers.protocol import (
    DeadlinePassed,
    InferRequest,
    InferResponse,
    InvalidRequest,
    PayloadTooLarge,
    Reply,
    RequestTimeout,
    WorkerBusy,
    WorkerDraining,
    WorkerError,
)
from workers.service import Catalog, Model

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
Write = Callable[[InferRequest, InferResponse], Reply]

METRICS_PATH: Final = "/metrics"
# Upper bound for requests that set no timeout of their own; the longest function runs as long.
REQUEST_TIMEOUT_S: Final = 900.0
_ACCEPT_ENCODING: Final = istr("accept-encoding")
_CODEC_THREADS: Final = 2
_RANKING_COST: Final = 16  # of a class to be written, to that of a value


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Bounds of one worker: waiting requests, bodies, concurrent runs of a model."""

    max_queue: int
    max_body_bytes: int
    max_runs: int
    body_timeout_s: float = 60.0


class HttpFront:
    """Answers requests for a catalog. Belongs to one event loop; `close` it when drained."""

    def __init__(
        self,
        catalog: Catalog,
        limits: FrontLimits,
        metrics: WorkerMetrics,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._catalog = catalog
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._runs = ThreadPoolExecutor(limits.max_runs, thread_name_prefix="run")
        self._codecs = ThreadPoolExecutor(_CODEC_THREADS, thread_name_prefix="codec")
        self._lanes: dict[Model, Lane] = {}
        self._lanes_by_path: dict[str, Lane] = {}
        self._model_metrics: dict[str, ModelMetrics] = {}
        self._unknown_model = metrics.for_model(UNKNOWN_MODEL)
        self._in_flight: dict[str, int] = defaultdict(int)
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        metrics.observe(
            in_flight=lambda: self.in_flight,
            queued=lambda: sum(lane.batcher.queue_depth for lane in self._lanes.values()),
            ready=lambda: not self._draining,
        )

    @property
    def in_flight(self) -> int:
        """Inferences accepted and not yet answered."""
        return sum(self._in_flight.values())

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to one request; errors have the protocol's shape."""
        try:
            reply = await self._route(request)
        except WorkerError as error:
            reply = error_reply(error)
        except Exception:  # noqa: BLE001 - root of the request: counted as 500 and logged, the worker lives on
            reply = _broken()
        response = to_response(reply)
        if self._draining:
            response.force_close()
        return response

    def answer_at_once(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        """The reply to an inference that needs no waiting; None, and nothing done, for all others.

        `body` is small and not compressed, `headers` are looked up without regard to case.
        """
        lane = self._lanes_by_path.get(path)
        if lane is None or not lane.pace.has_quick or self._draining:
            return None
        began = self._clock()
        try:
            request = read_infer(lane.model, headers, body, self._limits.max_body_bytes)
            return _run_at_once(
                lane, request, headers.get(_ACCEPT_ENCODING, ""), began, self._clock
            )
        except WorkerError as error:
            reply = error_reply(error)
        except Exception:  # noqa: BLE001 - as in `answer`
            reply = _broken()
        lane.metrics.record_request(reply.status, self._clock() - began)
        return reply

    async def _route(self, request: web.BaseRequest) -> Reply:
        path = request.rel_url.raw_path
        operation = match(request.method, path) if path != METRICS_PATH else None
        if operation is not None and operation.endpoint in RUNS:
            return await self._counted_infer(request, operation)
        self._count_now()  # whoever asks may read the counts
        if operation is None:
            return self._expose(request)
        answer = partial(describe, self._catalog, operation, not self._draining)
        if operation.endpoint in CHANGES:
            reply = await asyncio.to_thread(answer)
            self._forget_unloaded()
            return reply
        if operation.model and self._catalog.loaded(operation.model, operation.version) is None:
            return await asyncio.to_thread(answer)
        return answer()

    def _expose(self, request: web.BaseRequest) -> Reply:
        body, content_type = self._metrics.expose(request.headers.get("Accept", ""))
        return Reply(200, body, {"content-type": content_type})

    async def _counted_infer(self, request: web.BaseRequest, operation: Operation) -> Reply:
        """The inference, counted with its status whatever becomes of it."""
        metrics = self._metrics_of(operation.model)
        started = self._clock()
        code = 500
        try:
            reply = await self._infer(request, operation)
            code = reply.status
        except WorkerError as error:
            code = error.status
            raise
        except asyncio.CancelledError:
            code = CLIENT_GONE
            raise
        finally:
            metrics.record_request(code, self._clock() - started)
        return reply

    async def _infer(self, request: web.BaseRequest, operation: Operation) -> Reply:
        self._catalog.resolve(operation.model, operation.version)
        with self._accepted(operation.model):
            model = await self._model(operation)
            self._check_room(model)
            lane = self._lane(model)
            headers = request.headers  # looked up without regard to case
            body = await self._read_body(request)
            size = len(body)
            if headers.get("content-encoding"):
                size = max(size, ASIDE_BYTES)  # what it inflates to is unknown: never on the loop
            is_v1 = operation.endpoint is Endpoint.PREDICT
            read, write = (read_predict, write_predict) if is_v1 else (read_infer, write_infer)
            decoded = await self._aside(
                size, partial(read, model, headers, body, self._limits.max_body_bytes)
            )
            del body  # the request's tensors keep what they need of it
            write = partial(write, accept_encoding=headers.get("accept-encoding", ""))
            return await self._run_request(lane, decoded, write)

    @contextmanager
    def _accepted(self, model: str) -> Iterator[None]:
        if self._draining:
            raise WorkerDraining("the worker is draining; send the request to another replica")
        self._in_flight[model] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight[model] -= 1
            if not self.in_flight:
                self._idle.set()

    def _check_room(self, model: Model) -> None:
        """Refuse by the head alone, so that no more bodies are held than can be queued."""
        running = self._limits.max_runs * max(1, model.max_batch)
        if self._in_flight[model.name] > self._limits.max_queue + running:
            raise WorkerBusy(
                f"the worker is full ({self._limits.max_queue} requests wait for "
                f"{model.name!r}); send it to another replica or try again later"
            )

    async def _model(self, operation: Operation) -> Model:
        model = self._catalog.loaded(operation.model, operation.version)
        if model is None:
            self._count_now()  # what makes room is chosen by its last use
            load = self._catalog.load
            model = await asyncio.to_thread(load, operation.model, operation.version)
            self._forget_unloaded()
        return model

    def _metrics_of(self, model: str) -> ModelMetrics:
        found = self._model_metrics.get(model)
        if found is None:
            if model not in self._catalog.names:
                return self._unknown_model
            found = self._model_metrics[model] = self._metrics.for_model(model)
        return found

    def _forget_unloaded(self) -> None:
        """Drop the queues of models that are not in memory any more; what runs there goes on."""
        self._count_now()
        kept = set(self._catalog.loaded_models())
        self._lanes = {model: lane for model, lane in self._lanes.items() if model in kept}
        self._lanes_by_path = {
            path: lane for path, lane in self._lanes_by_path.items() if lane.model in kept
        }

    def _count_now(self) -> None:
        for lane in self._lanes.values():
            lane.fold()

    async def _read_body(self, request: web.BaseRequest) -> bytearray:
        """The body, not kept by aiohttp; refused by its declared length where there is one."""
        limit, timeout_s = self._limits.max_body_bytes, self._limits.body_timeout_s
        if (request.content_length or 0) > limit:
            raise PayloadTooLarge(
                f"the body has {request.content_length} bytes, the limit is {limit}"
            )
        body = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise PayloadTooLarge(f"the body is larger than the limit of {limit} bytes")
        except TimeoutError as error:
            raise RequestTimeout(f"the body did not arrive within {timeout_s:g} s") from error
        except (ClientPayloadError, web.RequestPayloadError) as error:
            raise InvalidRequest(f"the body is malformed: {error}") from error
        return body

    async def _run_request(self, lane: Lane, request: InferRequest, write: Write) -> Reply:
        started = self._clock()
        try:
            feeds = lane.model.prepare(request)
            prepared = self._clock()
            outcome = await self._submit(lane, feeds, request.timeout_s)
            ran = self._clock()
            size = sum(array.nbytes for array in outcome.results)
            if _is_ranked(request):
                size *= _RANKING_COST
            reply = await self._aside(
                size, lambda: write(request, lane.model.respond(request, outcome.results))
            )
        except WorkerError:
            lane.record_failure(started)
            raise
        lane.record(feeds, outcome, Phases(started, prepared, ran))
        return reply

    async def _submit(self, lane: Lane, feeds: Feeds, timeout_s: float | None) -> Outcome:
        limit_s = REQUEST_TIMEOUT_S if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await lane.batcher.submit(feeds)
        except TimeoutError as error:
            raise _too_late(limit_s) from error

    def _lane(self, model: Model) -> Lane:
        lane = self._lanes.get(model)
        if lane is None:
            name, version = model.name, model.version
            bounds = self._limits.max_queue, self._limits.max_runs
            lane = Lane(model, self._metrics_of(name), self._runs, bounds, self._clock)
            self._lanes[model] = lane
            self._lanes_by_path[f"/v2/models/{name}/versions/{version}/infer"] = lane
            if self._catalog.resolve(name, None) == (name, version):
                self._lanes_by_path[f"/v2/models/{name}/infer"] = lane
        return lane

    async def _aside(self, size_bytes: int, work: Callable[[], _Result]) -> _Result:
        """Do `work` at once if it is small, else in a thread, so that the loop goes on."""
        if size_bytes < ASIDE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._codecs, work)

    async def drain(self, within_s: float) -> bool:
        """Take no new inferences and wait for the accepted ones; False if time ran out."""
        self._draining = True
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("drain: %d requests were cut off after %g s", self.in_flight, within_s)
            return False
        return True

    async def close(self) -> None:
        """Release queues and threads; runs that have begun are not waited for."""
        for lane in self._lanes.values():
            await lane.batcher.close()
        self._runs.shutdown(wait=False, cancel_futures=True)
        self._codecs.shutdown(wait=False, cancel_futures=True)


def _run_at_once(
    lane: Lane, request: InferRequest, accept: str, began: float, clock: Callable[[], float]
) -> Reply | None:
    """As `HttpFront._run_request`, without waiting; None where the run might take long.

    Counts the request if it is answered; callers count those that fail.
    """
    if request.outputs and _is_ranked(request):
        return None
    started = clock()
    try:
        feeds = lane.model.prepare(request)
        prepared = clock()
        outcome = lane.run(feeds)
        if outcome is None:
            return None
        ran = clock()
        if request.timeout_s is not None and ran - prepared > request.timeout_s:
            raise _too_late(request.timeout_s)
        reply = write_infer(request, lane.model.respond(request, outcome.results), accept)
    except WorkerError:
        lane.record_failure(started)
        raise
    phases = Phases(started, prepared, ran)
    lane.answered_at_once(Answered(began, phases, clock(), outcome.run_s, outcome.batch_rows))
    return reply


def _is_ranked(request: InferRequest) -> bool:
    return any(requested.classes for requested in request.outputs)


def _too_late(limit_s: float) -> DeadlinePassed:
    return DeadlinePassed(f"no answer within the timeout of {limit_s:g} s")


def _broken() -> Reply:
    _log.exception("request failed")
    return json_reply({"error": "internal error"}, 500)
