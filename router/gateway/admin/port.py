"""The admin port: health, metrics, status, configuration, explain, reload, drain, canaries.

Local by default; changes nothing but on reload, drain and a word about a canary.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from router.domain.errors import (
    EndpointNotFoundError,
    InvalidRequestError,
    RouterError,
)
from router.gateway.admin.events import document as events_document
from router.gateway.admin.events import search_of
from router.gateway.admin.explain import ExplainQuestion, explain
from router.gateway.admin.jobs import JobQuestion, JobsDesk
from router.gateway.admin.jobs import search_of as jobs_search_of
from router.gateway.admin.routes import Handlers, add_routes
from router.gateway.admin.status import StatusSources, status
from router.gateway.admin.trials import CanaryQuestion, act
from router.gateway.admin.watching import QualityQuestion
from router.gateway.protocols.oip import OIP
from router.gateway.readiness import DRAINING, Readiness, document
from router.gateway.responses import error_answer, not_found_model
from router.page.feed import Feed
from router.page.handlers import asks_all
from router.runtime import Runtime
from router.settings.loader import ConfigError
from router.telemetry.events import EventBook
from router.telemetry.exposition import Snapshot
from router.telemetry.metrics import Metrics
from router.telemetry.text import TextFormat
from router.turns import Turn, in_turns

MAX_BODY_BYTES = 64 * 1024

Middleware = Callable[..., Awaitable[web.StreamResponse]]


class EndpointDrain(msgspec.Struct, forbid_unknown_fields=True):
    """Which endpoint gets no new requests, or with `draining` false gets them again.

    `model` may name a shared pool: then it is the replica, with all its models.
    """

    model: str
    endpoint: str
    draining: bool = True


def drain_question(body: bytes) -> EndpointDrain | None:
    """What is to be drained; None, for an empty body, is the gateway.

    Raises InvalidRequestError.
    """
    if not body.strip():
        return None
    try:
        return msgspec.json.decode(body, type=EndpointDrain)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"what to drain is not valid: {error}") from error


def drain_endpoint(runtime: Runtime, question: EndpointDrain) -> dict[str, Any]:
    """Do so, and tell what is still in flight there.

    Raises ModelNotFoundError or EndpointNotFoundError.
    """
    owner = runtime.models.get(question.model) or runtime.groups.get(question.model)
    if owner is None:
        raise not_found_model(question.model)
    pool, found = owner.pool, None
    if pool is not None:
        found = pool.withdraw(question.endpoint, is_withdrawn=question.draining)
    if found is None:
        raise EndpointNotFoundError(
            f"{owner.title} has no endpoint {question.endpoint[:100]!r};"
            " GET /v1/status lists those it has"
        )
    return {
        "model": owner.name,
        "endpoint": found.id,
        "draining": question.draining,
        "in_flight": found.in_flight,
    }


@dataclass(frozen=True, slots=True)
class AdminPort:
    """Handlers of the admin port."""

    sources: StatusSources
    readiness: Readiness
    metrics: Metrics
    reload: Callable[[], Awaitable[str]]
    events: EventBook
    feed: Feed
    jobs: JobsDesk

    def application(self, *middlewares: Middleware) -> web.Application:
        """The aiohttp application that serves them, behind what decides who may ask."""
        app = application(*middlewares)
        handlers = Handlers(
            health=self._health, ready=self._ready, metrics=self._metrics, status=self._status,
            events=self._events, config=self._config, explain=self._explain, reload=self._reload,
            drain=self._drain, canary=self._canary, quality=self._quality,
            quality_action=self._quality_action, jobs=self._jobs, jobs_action=self._jobs_action,
        )  # fmt: skip
        add_routes(app, self.feed, handlers)
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        return json_reply({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        missing = self.readiness.missing(self.sources.clock())
        if self.sources.data.is_draining:
            missing.insert(0, DRAINING)
        return json_reply(document(missing), 503 if missing else 200)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        snapshot = await in_turns(self.metrics.snapshotting())
        return await metrics_reply(request, snapshot, self.metrics.build)

    async def _status(self, request: web.Request) -> web.Response:
        if asks_all(request):
            return json_reply(await self.feed.all_gateways())
        return json_reply(await in_turns(status(self.sources)))

    async def _events(self, request: web.Request) -> web.Response:
        search = search_of(request.query)
        return json_reply(events_document(self.events.find(search), search))

    async def _config(self, request: web.Request) -> web.StreamResponse:
        shown = await in_turns(self.sources.runtime.current.settings.masking())
        return await stream_reply(request, json_chunks(shown), "application/json")

    async def _explain(self, request: web.Request) -> web.Response:
        try:
            question = msgspec.json.decode(await request.read(), type=ExplainQuestion)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_reply({"error": f"the question is not valid: {error}"}, 400)
        runtime = self.sources.runtime.current
        return json_reply(explain(runtime, question, self.sources.clock()))

    async def _reload(self, _request: web.Request) -> web.Response:
        return await reload_reply(self.reload)

    async def _canary(self, request: web.Request) -> web.Response:
        """Take a canary out, or give it its share again."""
        try:
            question = msgspec.json.decode(await request.read(), type=CanaryQuestion)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_reply({"error": f"the question is not valid: {error}"}, 400)
        return json_reply(act(self.sources.runtime.current, question, self.sources.clock()))

    async def _quality(self, request: web.Request) -> web.Response:
        """How good the models are; `?model=` names one of them."""
        return json_reply(await self.sources.quality.shown(request.query.get("model")))

    async def _quality_action(self, request: web.Request) -> web.Response:
        """Have a version's baseline learned anew."""
        try:
            question = msgspec.json.decode(await request.read(), type=QualityQuestion)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_reply({"error": f"the question is not valid: {error}"}, 400)
        return json_reply(await self.sources.quality.act(question))

    async def _jobs(self, request: web.Request) -> web.Response:
        """How the jobs of all tenants stand."""
        return json_reply(await self.jobs.shown(jobs_search_of(request.query)))

    async def _jobs_action(self, request: web.Request) -> web.Response:
        """Have a job that failed for good begun again."""
        try:
            question = msgspec.json.decode(await request.read(), type=JobQuestion)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_reply({"error": f"the question is not valid: {error}"}, 400)
        return json_reply(await self.jobs.retry(question.id))

    async def _drain(self, request: web.Request) -> web.Response:
        """Take one endpoint out of rotation, or the whole gateway.

        The gateway is then not ready, and connections close after their answer.
        """
        question = drain_question(await request.read())
        if question is not None:
            return json_reply(drain_endpoint(self.sources.runtime.current, question))
        self.sources.data.is_draining = True
        return json_reply({"draining": True, "in_flight": self.sources.data.in_flight})


def application(*middlewares: Middleware) -> web.Application:
    """An application that answers errors as the admin port does, without any path yet."""
    return web.Application(
        client_max_size=MAX_BODY_BYTES, middlewares=[errors_as_json, *middlewares]
    )


def json_reply(document: object, status_: int = 200) -> web.Response:
    """A document as the admin port answers it."""
    body = msgspec.json.encode(document)
    return web.Response(status=status_, body=body, content_type="application/json")


def json_chunks(document: Mapping[str, object]) -> Iterator[bytes]:
    """An object as JSON, piece by piece; its lists are encoded entry by entry, and emptied.

    Freed at once, the entries would keep the loop about as long as encoding them at once.
    """
    separator = b"{"
    for name, value in document.items():
        yield separator + msgspec.json.encode(name) + b":"
        separator = b","
        if not isinstance(value, list) or not value:
            yield msgspec.json.encode(value)
            continue
        value.reverse()
        before = b"["
        for _ in range(len(value)):
            yield before + msgspec.json.encode(value.pop())
            before = b","
        yield b"]"
    yield b"}" if document else b"{}"


async def metrics_reply(
    request: web.Request, snapshot: Snapshot, build: Mapping[str, str]
) -> web.StreamResponse:
    """A snapshot in the format that the scraper prefers, written as it is made."""
    text = TextFormat(request.headers.get("accept", ""))
    return await stream_reply(request, text.chunks(snapshot, build), text.content_type)


async def stream_reply(
    request: web.Request, chunks: Iterable[bytes], content_type: str
) -> web.StreamResponse:
    """An answer that is too large to be made, or written, in one turn of the event loop."""
    response = web.StreamResponse(headers={"content-type": content_type})
    await response.prepare(request)
    turn = Turn()
    for chunk in chunks if request.method != "HEAD" else ():
        await response.write(chunk)
        await turn.pause_if_over()
    await response.write_eof()
    return response


async def reload_reply(reload: Callable[[], Awaitable[str]]) -> web.Response:
    """Reload, and say what came of it."""
    try:
        return json_reply({"reloaded": True, "hash": await reload()})
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
        return json_reply({"reloaded": False, "errors": problems}, 422)


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer errors as JSON too."""
    try:
        return await handler(request)
    except RouterError as error:
        answer = error_answer(error, OIP)
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")
    except web.HTTPException as error:
        return json_reply({"error": f"{error.status}: {error.reason}"}, error.status)
