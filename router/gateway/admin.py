"""The admin port: health, metrics, status, configuration, explain, reload, drain.

Local by default; changes nothing but on reload and drain.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from router.dispatch.director import explain_chain
from router.domain.decision import TraceStep
from router.domain.errors import (
    EndpointNotFoundError,
    InvalidRequestError,
    RouterError,
)
from router.domain.request import InferenceRequest, Protocol
from router.gateway.head import read_head
from router.gateway.responses import error_answer, not_found_model
from router.gateway.status import StatusSources, status
from router.gateway.trials import CanaryQuestion, act
from router.gateway.variant import Variant, variant_of
from router.policy.decide import prioritised
from router.runtime import ModelRuntime, Runtime
from router.settings.loader import ConfigError
from router.settings.server import BackendHint
from router.telemetry.metrics import Metrics

MAX_BODY_BYTES = 64 * 1024


class ExplainQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The request to be explained."""

    model: str
    payload_bytes: int
    version: str | None = None
    headers: dict[str, str] = {}
    deadline_ms: float | None = None
    tenant: str | None = None

    def request(self, runtime: Runtime, now: float) -> InferenceRequest:
        """The request as it would be seen on the data port; an own deadline goes before a header's.

        Raises InvalidRequestError or UnsupportedMediaError, as the data port would.
        """
        given = CIMultiDictProxy(CIMultiDict(self.headers))
        head = read_head(given, keys_are_ours=not runtime.keys.is_open)
        deadline_ms = self.deadline_ms if self.deadline_ms is not None else head.deadline_ms
        hints_count = runtime.settings.server.backend_hint is BackendHint.ALLOW
        return InferenceRequest(
            request_id=head.request_id or "explain",
            protocol=Protocol.OIP,
            model=self.model,
            method="POST",
            path=f"/v2/models/{self.model}/infer",
            payload_bytes=self.payload_bytes,
            received_at=now,
            version=self.version,
            is_text=head.is_text,
            headers=head.headers,
            tenant=self.tenant,
            deadline=now + deadline_ms / 1e3 if deadline_ms is not None else None,
            hint=head.hint if hints_count else None,
        )


def explain(
    runtime: Runtime,
    question: ExplainQuestion,
    now: float,
) -> dict[str, Any]:
    """The answer of `/v1/explain`: the decision with its trace, or the refusal.

    Raises ModelNotFoundError, InvalidRequestError or UnsupportedMediaError.
    """
    model = runtime.models.get(question.model)
    if model is None:
        raise not_found_model(question.model)
    variant = variant_of(runtime, model, question.request(runtime, now))
    chain = _chain(runtime, variant)
    model, decision, trace, refusal = explain_chain(chain, now)
    priority = chain[0][1].priority
    if priority is not None:
        trace.append(TraceStep("priority", priority.name.lower(), "while it has to wait"))
    if variant.assignment is not None:
        trace.insert(0, variant.assignment.explained)
    document: dict[str, Any] = dict.fromkeys(("backend", "reason", "rule", "held", "finish_ms"))
    document["model"] = model.name
    if decision is not None:
        document |= {
            "backend": decision.backend,
            "reason": decision.reason,
            "rule": decision.rule,
            "held": decision.hold,
            "finish_ms": round(decision.finish_s * 1e3, 3),
            "price_usd": decision.price_usd,
        }
    document["error"] = str(refusal) if refusal is not None else None
    document["trace"] = [step._asdict() for step in trace]
    return document


def _chain(runtime: Runtime, variant: Variant) -> list[tuple[ModelRuntime, InferenceRequest]]:
    """The model and its fallbacks, each with the request as it is asked."""
    fallbacks = [runtime.models[name] for name in variant.model.settings.fallback]
    asked = [
        (variant.model, variant.request),
        *((model, model.addressed(variant.request, None)) for model in fallbacks),
    ]
    return [(model, prioritised(request, model.policy)) for model, request in asked]


class EndpointDrain(msgspec.Struct, forbid_unknown_fields=True):
    """Which endpoint gets no new requests, or with `draining` false gets them again."""

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
    model = runtime.models.get(question.model)
    if model is None:
        raise not_found_model(question.model)
    pool, found = model.pool, None
    if pool is not None:
        found = pool.withdraw(question.endpoint, is_withdrawn=question.draining)
    if found is None:
        raise EndpointNotFoundError(
            f"model {model.name} has no endpoint {question.endpoint[:100]!r};"
            " GET /v1/status lists those it has"
        )
    return {
        "model": model.name,
        "endpoint": found.id,
        "draining": question.draining,
        "in_flight": found.in_flight,
    }


@dataclass(frozen=True, slots=True)
class AdminPort:
    """Handlers of the admin port."""

    sources: StatusSources
    metrics: Metrics
    reload: Callable[[], Awaitable[str]]

    def application(self) -> web.Application:
        """The aiohttp application that serves them."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[errors_as_json])
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/config", self._config)
        app.router.add_post("/v1/explain", self._explain)
        app.router.add_post("/v1/reload", self._reload)
        app.router.add_post("/v1/drain", self._drain)
        app.router.add_post("/v1/canary", self._canary)
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        return json_reply({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        is_ready = not self.sources.data.is_draining
        return json_reply({"ready": is_ready}, 200 if is_ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = self.metrics.expose(request.headers.get("accept", ""))
        return web.Response(body=body, headers={"content-type": content_type})

    async def _status(self, _request: web.Request) -> web.Response:
        return json_reply(status(self.sources))

    async def _config(self, _request: web.Request) -> web.Response:
        return json_reply(self.sources.runtime.current.settings.masked())

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

    async def _drain(self, request: web.Request) -> web.Response:
        """Take one endpoint out of rotation, or the whole gateway.

        The gateway is then not ready, and connections close after their answer.
        """
        question = drain_question(await request.read())
        if question is not None:
            return json_reply(drain_endpoint(self.sources.runtime.current, question))
        self.sources.data.is_draining = True
        return json_reply({"draining": True, "in_flight": self.sources.data.in_flight})


def json_reply(document: object, status_: int = 200) -> web.Response:
    """A document as the admin port answers it."""
    body = msgspec.json.encode(document)
    return web.Response(status=status_, body=body, content_type="application/json")


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
        answer = error_answer(error, Protocol.OIP)
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")
    except web.HTTPException as error:
        return json_reply({"error": f"{error.status}: {error.reason}"}, error.status)
