"""Requests of a route at its model's function: when they go there at once, and what a call is."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from router.backends.refusal import verdict_of_answer
from router.backends.serverless.bodies import THREAD_FROM_BYTES
from router.backends.serverless.calls import Calls, Message, Understood
from router.backends.serverless.function import Function, FunctionLease
from router.dispatch.attempts import Attempts, timeout_s_of
from router.domain.decision import Backend, Decision, Reason, Verdict
from router.domain.errors import AttemptError, RouterError
from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.domain.spent import Spent
from router.gateway.shortcut.fast_pool import ESTIMATES_FRESH_S
from router.gateway.shortcut.fast_way import Alike, Answer, Reading, Way
from router.gateway.shortcut.known_heads import TENSORS, Sorted
from router.policy.decide import decide
from router.policy.feasibility import is_too_large
from router.policy.rules import first_match
from router.upstream.address import Address
from router.upstream.response_head import ResponseHead

_BAD = 300
_PINNED = frozenset({Reason.RULE, Reason.HINT})


class FunctionSide:
    """A route to a function: whether requests go there at once is for `decide` to say.

    Where no more than slow estimates could change the decision, it is remembered for a moment.
    `is_callable` is false once it is known that calls need a task.
    """

    __slots__ = (
        "_attempts",
        "_calls",
        "_decision",
        "_is_drawn",
        "_is_prepared",
        "_until",
        "_ways",
        "alike",
        "function",
        "is_callable",
        "timeout_s",
    )

    def __init__(self, alike: Alike, function: Function, attempts: Attempts) -> None:
        self.alike = alike
        self.function = function
        self._calls: Calls | None = None
        self._is_prepared = False
        self.is_callable = True
        self._attempts = attempts
        rules = alike.model.policy.rules
        self._is_drawn = first_match(rules, alike.request).route.serverless_share is not None
        self._ways: dict[bool | None, Way] = {}
        self._decision: Decision | None = None
        self._until = 0.0
        self.timeout_s = 0.0

    def decision(self, head: Sorted, request_id: bytes, now: float) -> Decision | None:
        """The decision about one request, if it is for the function at once."""
        if now < self._until:
            return self._decision
        alike = self.alike
        deadline = None if head.deadline_ms is None else now + head.deadline_ms / 1e3
        request = replace(
            alike.request, request_id=request_id.decode("ascii"), payload_bytes=head.body_bytes,
            received_at=now, deadline=deadline,
        )  # fmt: skip
        decision = self._decided(request, now)
        if decision is not None:
            self.timeout_s = timeout_s_of(alike.model, Backend.SERVERLESS)
            if self._is_for_all(decision):
                self._decision, self._until = decision, now + ESTIMATES_FRESH_S
        return decision

    def _decided(self, request: InferenceRequest, now: float) -> Decision | None:
        model = self.alike.model
        try:
            state = model.state(request, now, {}, is_counted=False)
            decision = decide(request, model.policy, state, now)
        except RouterError:
            return None
        is_at_once = decision.backend is Backend.SERVERLESS and not decision.hold
        return decision if is_at_once else None

    def _is_for_all(self, decision: Decision) -> bool:
        """Whether all requests of the route have it too, as long as the function has a free slot.

        That is so unless it is drawn, or the state of a pool counts.
        """
        model, request = self.alike.model, self.alike.request
        has_pool = model.pool is not None and model.pool.params.enabled
        if self._is_drawn or (has_pool and decision.reason not in _PINNED):
            return False
        _, last = model.policy.alike(request.payload_bytes)
        return not is_too_large(replace(request, payload_bytes=last), self.function.params.limits)

    def prepared(self, head: Sorted, request_id: bytes, body: bytes) -> "Prepared | None":
        """The call; None if it cannot be made so, or at all, which the director says."""
        try:
            calls = self._calls if self._is_prepared else self._prepare()
            if calls is None:
                return None
            lines = head.passing + head.told
            return calls, calls.address, calls.message(lines, request_id, body)
        except RouterError:
            return None

    def _prepare(self) -> Calls | None:
        """What calls share; worked out for the first of them, for most heads lead to a pool."""
        self._calls = self.function.caller.prepared(self.alike.request, (TENSORS,))
        self._is_prepared, self.is_callable = True, self._calls is not None
        return self._calls

    def call(self, prepared: "Prepared", now: float) -> "FunctionCall":
        """The call with a slot, where `Function.is_free` has said that there is one."""
        lease = self.function.take(now)
        return FunctionCall(self, lease, prepared)

    def way(self, *, is_cold: bool | None) -> Way:
        """What calls share that began like that."""
        way = self._ways.get(is_cold)
        if way is None:
            endpoint_id = self.function.params.endpoint_id
            way = Way(self.alike, Backend.SERVERLESS, endpoint_id, is_cold=is_cold)
            self._ways[is_cold] = way
        return way

    def settle(
        self, lease: FunctionLease, verdict: Verdict, response: BackendResponse | None
    ) -> Spent:
        """Free a call's slot; returns what it has cost."""
        return self._attempts.settle(self.alike.model, lease, verdict, response)


Prepared = tuple[Calls, Address, Message]
"""A call that may be sent: of which kind, where to, and what."""


class FunctionCall:
    """One call of a function: a place with a slot."""

    __slots__ = (
        "_calls", "_lease", "_message", "_response", "_side", "address", "connect_timeout_s",
        "max_answer_bytes", "spent", "timeout_s", "way",
    )  # fmt: skip

    def __init__(self, side: FunctionSide, lease: FunctionLease, prepared: Prepared) -> None:
        self._side = side
        self._lease = lease
        self._calls, self.address, self._message = prepared
        calls = self._calls
        self._response: BackendResponse | None = None
        self.connect_timeout_s = calls.connect_timeout_s
        self.max_answer_bytes: float = calls.max_answer_bytes
        # The function's own limit, and what a cold start may take.
        self.timeout_s = side.timeout_s
        self.spent: Spent | None = None
        self.way = side.way(is_cold=None)

    @property
    def init_s(self) -> float | None:
        """As the platform says."""
        return None if self._response is None else self._response.init_s

    def message(self, head: Sorted, request_id: bytes, body: bytes) -> tuple[bytes, bytes]:
        """As it was prepared."""
        del request_id, body
        self._lease.begin(self._side.alike.request, head.body_bytes)
        return self._message

    def passes_on(self, head: ResponseHead, size_bytes: int, start: bytes) -> bool:
        """Whether the platform's answer is the model's as it comes. Raises AttemptError."""
        response = self._calls.passes_on(head, size_bytes, start)
        if response is None:
            return False
        self._note(self._lease.answered(response, is_complete=False))
        return True

    def understood(self, head: ResponseHead, body: bytes) -> Answer:
        """The model's answer. Raises AttemptError where it is the platform's."""
        return self._taken(self._calls.understand(head, body))

    def _taken(self, found: Understood) -> Answer:
        head, response = found
        self._note(self._lease.answered(response))
        return Answer(head, response.body)

    def read(
        self, head: ResponseHead, body: bytes, told: Callable[[Callable[[], Answer]], None]
    ) -> Reading | None:
        """In a thread if it would keep the loop for too long."""
        if len(body) < THREAD_FROM_BYTES or head.status >= _BAD:
            told(partial(self.understood, head, body))
            return None
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(None, self._calls.understand, head, body)

        def read(done: "asyncio.Future[Understood]") -> None:
            if not done.cancelled():
                told(lambda: self._taken(done.result()))

        reading.add_done_callback(read)
        return reading

    def stream_begun(self, head: ResponseHead, size_bytes: int, served_s: float) -> None:
        """What there is to learn is learned at its end."""

    def answered(self, status: int, started: float, now: float) -> None:
        """Free the slot, and learn what the call has cost."""
        del started, now
        self.spent = self._side.settle(self._lease, verdict_of_answer(status), self._response)
        response = self._response
        if response is not None and response.cold_start is not self.way.is_cold:
            self._note(response)  # a stream has told at its end

    def own_answer(self, error: AttemptError) -> Answer | None:
        """The answer of a model whose own code has failed; what else failed is noted."""
        request = self._side.alike.request
        try:
            response = self._lease.failed(request, error)
        except AttemptError:
            return None
        self._note(response)
        headers = tuple(response.headers)
        phrase = HTTPStatus(response.status).phrase
        head = ResponseHead(response.status, phrase, headers, None, is_event_stream=False)
        return Answer(head, response.body)

    def untried(self) -> None:
        """The platform never had it: nothing is to be paid."""
        self._lease.may_have_run = False

    def release(self, verdict: Verdict, started: float, now: float) -> Spent:
        """Free the slot; returns what the call has cost."""
        del started, now
        if verdict is Verdict.CANCELLED and self._response is None:
            self._lease.note_time()
        self.spent = self._side.settle(self._lease, verdict, self._response)
        return self.spent

    def lease(self, started: float) -> FunctionLease:
        """The slot."""
        del started
        return self._lease

    def _note(self, response: BackendResponse) -> None:
        self._response = response
        self.way = self._side.way(is_cold=response.cold_start)
