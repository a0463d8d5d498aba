"""Copies of requests for shadows: sent in the background, their answers compared and thrown away.

A copy starts once the client's answer is on its way, has a deadline of its own, and is dropped and
counted when too many are under way. Nothing here can delay or fail the client's request.
"""

import asyncio
import logging
from dataclasses import dataclass, replace

from router.dispatch.attempts import Record
from router.dispatch.chain import Link
from router.dispatch.director import Director
from router.domain.clock import Clock
from router.domain.errors import DeadlineExceededError, RouterError
from router.domain.ports import BackendResponse, Payload
from router.domain.request import InferenceRequest
from router.policy.canary import Shadow, draw, is_copied
from router.quality.keeping import Keeper, KeptAnswer, KeptParts, KeptUpload, kept_body
from router.quality.quality import Quality
from router.quality.samples import Origin, Sample
from router.quality.tensors import Answer
from router.runtime import ModelRuntime, Runtime
from router.shadow.compare import compare
from router.shadow.counts import ComparisonResult, CopyResult, ShadowCounts
from router.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

_INLINE_BYTES = 32 * 1024
"""Answers that together have at most so much are compared on the event loop."""


@dataclass(frozen=True, slots=True)
class _Order:
    """All that sending a copy needs."""

    shadow: Shadow
    model: ModelRuntime
    request: InferenceRequest
    counts: ShadowCounts
    keeper: Keeper
    is_compared: bool
    quality: Quality


class Copy:
    """A request that a shadow will get too. Whoever holds it calls `send` or `drop`."""

    is_begun_anew = True

    def __init__(self, shadows: "Shadows", order: _Order, body: Payload) -> None:
        self._shadows = shadows
        self._order = order
        self.body = body if isinstance(body, bytes) else KeptUpload(body)
        self._answer: BackendResponse | None = None
        self._rest: KeptParts | None = None

    def watch(self, response: BackendResponse) -> None:
        """Keep the client's answer, if it is to be compared, as it passes."""
        if not self._order.is_compared:
            return
        if response.rest is not None:
            self._rest = response.rest = KeptAnswer(response.rest, self._order.keeper)
        self._keep(response)

    def parts(self, response: BackendResponse) -> KeptParts:
        """As `watch`, for who passes on by itself what comes after `response`, and says so."""
        kept = KeptParts(self._order.keeper)
        if self._order.is_compared:
            self._rest = kept
            self._keep(response)
        return kept

    def _keep(self, response: BackendResponse) -> None:
        if self._order.keeper.reserve(len(response.body)):
            self._answer = response

    def send(self) -> None:
        """The client has its answer: now it is the shadow's turn."""
        body = kept_body(self.body)
        if body is None or len(body) != self._order.request.payload_bytes:
            self.drop()  # an answer that came before the end of the request
            return
        self._shadows.start(self._order, body, self._client_answer())

    def drop(self) -> None:
        """The client's request failed: there is nothing to learn from a copy."""
        self._order.keeper.close()
        self._order.counts.in_flight -= 1

    def _client_answer(self) -> Answer | None:
        answer, rest = self._answer, b""
        if answer is None:
            return None
        if self._rest is not None:
            if self._rest.content is None:
                return None
            rest = self._rest.content
        return _answer(answer, answer.body + rest)


class Shadows:
    """The shadows of one gateway process, and the copies under way."""

    def __init__(self, director: Director, metrics: Metrics, clock: Clock) -> None:
        self._director = director
        self._metrics = metrics
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: dict[str, ShadowCounts] = {}

    def begin(
        self, shadow: Shadow, runtime: Runtime, request: InferenceRequest, body: Payload
    ) -> Copy | None:
        """The copy of a request that is about to be sent; None if the shadow gets none."""
        if not is_copied(shadow, request.request_id):
            return None
        counts = self.counts.setdefault(shadow.model, ShadowCounts())
        if request.payload_bytes > shadow.max_bytes:
            counts.copies[CopyResult.TOO_LARGE] += 1
            return None
        keeper = Keeper(counts.bytes, shadow.max_bytes)
        if counts.in_flight >= shadow.max_in_flight or not keeper.reserve(request.payload_bytes):
            counts.copies[CopyResult.BUSY] += 1
            return None
        counts.in_flight += 1
        compared = draw(f"compare {shadow.model}", request.request_id) < shadow.compared
        model = runtime.models[shadow.model]
        addressed = replace(model.addressed(request, None), hint=None)
        return Copy(
            self, _Order(shadow, model, addressed, counts, keeper, compared, runtime.quality), body
        )

    def start(self, order: _Order, body: bytes, answer: Answer | None) -> None:
        """Send a copy in the background."""
        task = asyncio.create_task(
            self._run(order, body, answer), name=f"shadow {order.model.name}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the copies under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def retain(self, runtime: Runtime) -> None:
        """Forget the shadows that a configuration no longer has."""
        wanted = {
            rule.shadow.model
            for model in runtime.models.values()
            for rule in model.policy.rules
            if rule.shadow is not None
        }
        self.counts = {name: found for name, found in self.counts.items() if name in wanted}

    async def _run(self, order: _Order, body: bytes, answer: Answer | None) -> None:
        counts, began = order.counts, self._clock()
        result = CopyResult.FAILED
        try:
            async with asyncio.timeout(order.shadow.timeout_s):
                status, shadowed = await self._answer_of(order, body)
            result = CopyResult.FAILED if status >= 500 else CopyResult.OK
            self._metrics.observe_shadow(order.model.name, self._clock() - began)
            if shadowed is not None and status < 300:
                _sample(order, body, shadowed)
            if order.is_compared:
                await _compare(order, answer, shadowed)
        except (TimeoutError, DeadlineExceededError):
            result = CopyResult.TIMEOUT
        except RouterError as error:
            _log.debug("shadow %s: %s", order.model.name, error)
        except Exception:  # noqa: BLE001  root of a background task: reported and counted
            _log.exception("a copy for shadow %s failed", order.model.name)
        finally:
            counts.copies[result] += 1
            counts.in_flight -= 1
            order.keeper.close()

    async def _answer_of(self, order: _Order, body: bytes) -> tuple[int, Answer | None]:
        """The shadow's status, and its answer if there is room to keep it."""
        now = self._clock()
        request = replace(order.request, received_at=now, deadline=now + order.shadow.timeout_s)
        chain = (Link(order.model, request),)
        record = Record(tenant=request.tenant or "")
        async with self._director.serve(chain, body, record) as response:
            if response.rest is None:
                has_room = order.keeper.reserve(len(response.body))
                return response.status, _answer(response, response.body) if has_room else None
            rest = KeptAnswer(response.rest, order.keeper)
            async for _ in rest:
                pass
            if rest.content is None or not order.keeper.reserve(len(response.body)):
                return response.status, None
            return response.status, _answer(response, response.body + rest.content)


def _answer(response: BackendResponse, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers}
    return Answer(response.status, headers, body)


def _sample(order: _Order, body: bytes, answer: Answer) -> None:
    """Have the shadow's answer read too, if its quality is watched: labels will judge it."""
    model, request, quality = order.model, order.request, order.quality
    if not quality.draws(model.tap, model.name, request.received_at):
        return
    version = request.version or model.settings.version or ""
    origin = Origin(model.name, version, request.tenant, is_shadow=True)
    quality.offer(
        Sample(
            origin, request.request_id, request.protocol.answers, request.headers, body, answer,
            quality.now(),
        )
    )  # fmt: skip


async def _compare(order: _Order, answer: Answer | None, shadowed: Answer | None) -> None:
    counts = order.counts
    if answer is None or shadowed is None:
        counts.comparisons[ComparisonResult.SKIPPED] += 1
        return
    arguments = (order.request.protocol.answers, answer, shadowed, order.shadow.tolerance)
    if len(answer.body) + len(shadowed.body) > _INLINE_BYTES:
        found = await asyncio.to_thread(compare, *arguments)
    else:
        found = compare(*arguments)
    counts.max_difference = max(counts.max_difference, found.max_difference)
    if found.is_match:
        counts.comparisons[ComparisonResult.MATCH] += 1
        return
    counts.comparisons[ComparisonResult.MISMATCH] += 1
    counts.last_mismatch = f"{order.request.request_id}: {found.text}"
