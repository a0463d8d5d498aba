"""What would happen to a request now, and why, step by step. Reserves and sends nothing."""

from typing import Any

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from router.dispatch.chain import explain_chain
from router.domain.decision import TraceStep
from router.domain.errors import InvalidRequestError
from router.domain.request import InferenceRequest
from router.gateway.access import model_for, stand_ins
from router.gateway.admin.deferred import deferral_of, explained
from router.gateway.head import read_head
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.registry import PROTOCOLS
from router.gateway.variant import Variant, variant_of
from router.policy.decide import prioritised
from router.runtime import ModelRuntime, Runtime
from router.settings.keys import ApiKey
from router.settings.server import BackendHint


class ExplainQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The request to be explained.

    `protocol` is the name of one; `key` is the name of the caller's API key, never the key itself,
    and says for which tenant the request counts and what it may use.
    """

    model: str
    payload_bytes: int
    version: str | None = None
    headers: dict[str, str] = {}
    deadline_ms: float | None = None
    tenant: str | None = None
    protocol: str = OIP.name
    stream: bool = False
    key: str | None = None

    def caller(self, runtime: Runtime) -> ApiKey | None:
        """The API key of that name. Raises InvalidRequestError if there is none."""
        if self.key is None:
            return None
        caller = runtime.keys.named(self.key)
        if caller is None:
            raise InvalidRequestError(f"there is no API key named {self.key[:100]!r}")
        return caller

    def request(
        self, runtime: Runtime, caller: ApiKey | None, model: ModelRuntime, now: float
    ) -> InferenceRequest:
        """The request as it would be seen on the data port; an own deadline goes before a header's.

        Raises InvalidRequestError or UnsupportedMediaError, as the data port would.
        """
        protocol = next((known for known in PROTOCOLS if known.name == self.protocol), None)
        if protocol is None:
            names = ", ".join(known.name for known in PROTOCOLS)
            raise InvalidRequestError(f"protocol = {self.protocol[:100]!r}, must be one of {names}")
        given = CIMultiDictProxy(CIMultiDict(self.headers))
        head = read_head(given, keys_are_ours=not runtime.keys.is_open)
        deadline_ms = self.deadline_ms if self.deadline_ms is not None else head.deadline_ms
        hints_count = runtime.settings.server.backend_hint is BackendHint.ALLOW
        return InferenceRequest(
            request_id=head.request_id or "explain",
            protocol=protocol,
            model=self.model,
            method="POST",
            action="infer",
            path=OIP.path("infer", self.model, self.version),
            payload_bytes=self.payload_bytes,
            received_at=now,
            version=self.version,
            is_text=head.is_text,
            headers=head.headers,
            tenant=caller.tenant if caller is not None else self.tenant,
            weight=caller.weight if caller is not None else 1.0,
            stream=self.stream,
            is_idempotent=model.settings.idempotent,
            deadline=now + deadline_ms / 1e3 if deadline_ms is not None else None,
            hint=head.hint if hints_count else None,
        )


def explain(
    runtime: Runtime,
    question: ExplainQuestion,
    now: float,
) -> dict[str, Any]:
    """The answer of `/v1/explain`: the decision with its trace, or the refusal.

    Raises ModelNotFoundError, ForbiddenError, InvalidRequestError or UnsupportedMediaError.
    """
    caller = question.caller(runtime)
    model = model_for(runtime, caller, question.model)
    variant = variant_of(runtime, model, question.request(runtime, caller, model, now))
    chain = _chain(runtime, caller, variant)
    model, decision, trace, refusal = explain_chain(chain, now)
    priority = chain[0][1].priority
    if priority is not None:
        trace.append(TraceStep("priority", priority.name.lower(), "while it has to wait"))
    if variant.assignment is not None:
        trace.insert(0, variant.assignment.explained)
    if (waits := explained(deferral_of(runtime, model))) is not None:
        trace.append(waits)
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


def _chain(
    runtime: Runtime, caller: ApiKey | None, variant: Variant
) -> list[tuple[ModelRuntime, InferenceRequest]]:
    """The model and its fallbacks, each with the request as it is asked."""
    fallbacks = stand_ins(runtime, caller, variant.model)
    asked = [
        (variant.model, variant.request),
        *((model, model.addressed(variant.request, None)) for model in fallbacks),
    ]
    return [(model, prioritised(request, model.policy)) for model, request in asked]
