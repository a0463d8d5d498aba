"""A request that is answered later, and the same request again when its turn has come.

What the client sent is kept as it came, without its key: whose call it is, is kept by name.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from multidict import CIMultiDict, CIMultiDictProxy

from router.dispatch.chain import Link
from router.domain.decision import Backend
from router.domain.errors import UnauthorizedError
from router.domain.request import Priority
from router.gateway.body import Body
from router.gateway.exchange import Exchange
from router.gateway.intake import Intake, resolved_intent
from router.gateway.protocols.base import Target
from router.jobs.records import Spec, as_it_came, plain
from router.runtime import ModelRuntime, Runtime
from router.settings.keys import ApiKey

_DROPPED = frozenset(
    {"authorization", "connection", "content-length", "cookie", "expect", "host",
     "idempotency-key", "keep-alive", "prefer", "proxy-authorization", "te", "trailer",
     "transfer-encoding", "upgrade", "x-api-key", "x-router-deadline-ms"}
)  # fmt: skip
MAX_PREFER_CHARS = 1000
_MOST_HEADS = 64


def wants_later(headers: Mapping[str, str]) -> bool:
    """Whether a client prefers to be answered later (RFC 7240)."""
    preferred = headers.get("prefer", "")[:MAX_PREFER_CHARS].lower().split(",")
    return any(one.partition(";")[0].strip() == "respond-async" for one in preferred)


def kept_headers(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What of a request's head the call needs; secrets are not among it."""
    return tuple(
        (plain(name), plain(value)) for name, value in headers if name.lower() not in _DROPPED
    )


def fingerprint(target: str, body: bytes) -> str:
    """Tells whether two requests with the same Idempotency-Key are the same."""
    return hashlib.sha256(target.encode("utf-8", "surrogateescape") + b"\0" + body).hexdigest()


def caller_of(runtime: Runtime, spec: Spec) -> ApiKey | None:
    """The key under which the call was made. Raises UnauthorizedError if it is no more."""
    if runtime.keys.is_open:
        return None
    caller = runtime.keys.named(spec.key)
    if caller is None:
        raise UnauthorizedError("the API key that the call was made with is not known any more")
    return caller


class CallHead:
    """The head of a call that is made again, understood: who asks, and for what."""

    def __init__(self, spec: Spec, runtime: Runtime) -> None:
        """Raises RouterError for a caller or a path that is no more."""
        lines = [(as_it_came(name), as_it_came(value)) for name, value in spec.headers]
        self._intent = resolved_intent(
            (spec.method, as_it_came(spec.target)), CIMultiDictProxy(CIMultiDict(lines)), runtime,
            0.0, caller=lambda _: caller_of(runtime, spec), is_ready=True,
        )  # fmt: skip
        self._alone: dict[str, ModelRuntime] = {}

    async def links(
        self, body: Body, exchange: Exchange, runtime: Runtime, intake: Intake, *,
        due: float | None,
    ) -> tuple[Link, ...]:  # fmt: skip
        """The models that may answer, in their order. Raises RouterError.

        `due` is the deadline of one that is forced to begin; else only the first model's own
        replicas are asked.
        """
        target = self._intent.target
        assert isinstance(target, Target)  # noqa: S101  nothing else was accepted
        exchange.record.is_counted = True  # its rate is taken, and the sizing owes it nothing
        taken = await intake.understood(self._intent, target, body, exchange, runtime)
        links = tuple(
            replace(
                link,
                request=replace(
                    link.request, priority=Priority.LOW, deadline=due, is_job=True,
                    hint=_hint(link, exchange.received_at) if due is not None else None,
                ),
            )
            for link in taken.chain
        )  # fmt: skip
        return links if due is not None else (self._without_function(links[0]),)

    def _without_function(self, link: Link) -> Link:
        model = link.model
        if model.serverless is None:
            return link
        alone = self._alone.get(model.name)
        if alone is None:
            alone = self._alone[model.name] = replace(model, serverless=None)
        return replace(link, model=alone)


def _hint(link: Link, now: float) -> Backend | None:
    """Where a job goes that can wait no longer: to a free slot, or else to the function."""
    pool = link.model.pool
    if pool is None or pool.snapshot(link.request.payload_bytes, now).free_slots:
        return None
    return Backend.SERVERLESS


class CallHeads:
    """Heads that were understood under the runtime in force: the lines of a batch share one."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._heads: dict[tuple[object, ...], CallHead] = {}

    def of(self, spec: Spec, runtime: Runtime) -> CallHead:
        """The head of a call. Raises RouterError."""
        if runtime is not self._runtime or len(self._heads) >= _MOST_HEADS:
            self._runtime, self._heads = runtime, {}
        key = spec.key, spec.method, spec.target, spec.headers
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = CallHead(spec, runtime)
        return head
