"""A way to one place, as an attempt uses it, and what its requests share until they have ended."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar
from typing import Protocol as Interface

from router.dispatch.attempts import Record
from router.domain.decision import Backend, Decision, Outcome, Reason, Verdict
from router.domain.errors import AttemptError
from router.domain.ports import BackendResponse, Lease
from router.domain.request import InferenceRequest
from router.domain.spent import Spent
from router.gateway.exchange import Exchange
from router.gateway.responses import outcome_of_status
from router.gateway.shortcut.fast_tally import Answers
from router.gateway.shortcut.known_heads import Sorted
from router.gateway.variant import Assignment
from router.runtime import ModelRuntime
from router.telemetry.logs import AccessRecord
from router.upstream.address import Address
from router.upstream.response import UpstreamResponse
from router.upstream.response_head import ResponseHead

_MAX_KNOWN = 512
_OWN_OF_REPLIES = ("x-request-id", "server-timing")

K = TypeVar("K")
V = TypeVar("V")


class Assigned(NamedTuple):
    """A side of a canary, and the model that its requests ask for."""

    assignment: Assignment
    asked_model: str


class Alike(NamedTuple):
    """What all requests of a route share: their model, their facts, the rule that they match."""

    model: ModelRuntime
    request: InferenceRequest
    rule: str
    assigned: Assigned | None

    @property
    def tenant(self) -> str:
        """Who pays."""
        return self.request.tenant or ""


class Answer(NamedTuple):
    """A whole answer, as the client gets it; equal heads are mostly one object."""

    head: ResponseHead
    body: bytes


class Reading(Interface):
    """An answer that is being read."""

    def cancel(self) -> object:
        """Nobody wants it any more."""
        ...


class RunningLease(Lease, Interface):
    """A slot whose attempt somebody else has sent."""

    def taken_over(
        self, request: InferenceRequest, answer: Awaitable[UpstreamResponse], started: float
    ) -> Coroutine[Any, Any, BackendResponse]:
        """The answer of the attempt that was sent at `started`."""
        ...


class Place(Interface):
    """Where one attempt goes, with a slot taken. Callers release the slot exactly once.

    That is by `answered` or `release`, or by whoever has its `lease`.
    """

    @property
    def way(self) -> "Way":
        """What its requests share; may be another one once there is an answer."""
        ...

    @property
    def address(self) -> Address:
        """Where to connect."""
        ...

    @property
    def connect_timeout_s(self) -> float | None:
        """How long that may take; None for the usual time."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long an answer may take."""
        ...

    @property
    def max_answer_bytes(self) -> float:
        """The most that an answer may have."""
        ...

    @property
    def spent(self) -> Spent | None:
        """What the attempt has cost, once it has ended; None if no more than its slot's time."""
        ...

    @property
    def init_s(self) -> float | None:
        """How long the cold start took with which the answer began, if that is known."""
        ...

    def message(self, head: Sorted, request_id: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Head and body as they are sent; the attempt begins now."""
        ...

    def passes_on(self, head: ResponseHead, size_bytes: int, start: bytes) -> bool:
        """Whether a long answer, of which so much is here, goes on as it comes.

        Raises AttemptError for one that is not the model's.
        """
        ...

    def understood(self, head: ResponseHead, body: bytes) -> Answer:
        """The model's answer. Raises AttemptError for one that is not."""
        ...

    def read(
        self, head: ResponseHead, body: bytes, told: Callable[[Callable[[], Answer]], None]
    ) -> Reading | None:
        """As `understood`, for an answer that may be long: `told` gets what gives it or raises.

        At once, or later if there is a `Reading`, which whoever leaves cancels.
        """
        ...

    def stream_begun(self, head: ResponseHead, size_bytes: int, served_s: float) -> None:
        """The answer to a request of that size goes on as it comes."""
        ...

    def answered(self, status: int, started: float, now: float) -> None:
        """The attempt that began at `started` has been answered by the model."""
        ...

    def own_answer(self, error: AttemptError) -> Answer | None:
        """The answer that stands for a failure, where it is the model's own; else it is noted."""
        ...

    def untried(self) -> None:
        """The place never had the request."""
        ...

    def release(self, verdict: Verdict, started: float, now: float) -> Spent:
        """The attempt has ended in another way; returns what it has cost."""
        ...

    def lease(self, started: float) -> RunningLease:
        """The slot, for who goes on with the attempt that began at `started`."""
        ...


class ReplyStart(NamedTuple):
    """The lines that replies to such an answer share, and where these add up."""

    head: ResponseHead
    reason: Reason
    lines: bytes
    answers: Answers
    fresh_until: float


class Way:
    """What requests of one route to one place share, which start alike there.

    `learn` is told how long good answers took. `is_cold`: see `Record.cold_start`.
    """

    __slots__ = ("_answers", "_learn", "alike", "backend", "endpoint_id", "is_cold", "recent")

    def __init__(
        self,
        alike: Alike,
        backend: Backend,
        endpoint_id: str,
        learn: Callable[[int, float], None] | None = None,
        is_cold: bool | None = None,
    ) -> None:
        self.alike = alike
        self.backend = backend
        self.endpoint_id = endpoint_id
        self.is_cold = is_cold
        self._learn = learn
        self._answers: dict[tuple[str, int], Answers] = {}
        self.recent: ReplyStart | None = None

    @property
    def usd_per_s(self) -> float:
        """What a slot costs; nothing where calls are paid."""
        return 0.0

    def decision(self, reason: Reason) -> Decision:
        """The decision, without the predictions that only `explain` shows."""
        return Decision(self.backend, reason, self.alike.rule)

    def record(self, reason: Reason) -> Record:
        """What is known of a request on this way, until it is answered."""
        decision = self.decision(reason)
        return Record(decision, self.endpoint_id, attempts=1, tenant=self.alike.tenant)

    def reply_lines(self, reason: Reason) -> bytes:
        """The lines of a reply that name the decision."""
        headers = self._exchange(reason).headers(0.0)
        lines = [f"{name}: {value}\r\n" for name, value in headers if name not in _OWN_OF_REPLIES]
        return "".join(lines).encode()

    def answers(self, reason: Reason, status: int) -> Answers:
        """Where those of that reason and status add up."""
        found = self._answers.get((reason, status))
        if found is None:
            record = self.access_record(reason, status, outcome_of_status(status))
            found = Answers(self, reason, status, self._learn, record)
            remember(self._answers, (reason, status), found)
        return found

    def access_record(self, reason: Reason, status: int, outcome: Outcome) -> AccessRecord:
        """What is logged of a request; its id and times are still to be filled in."""
        exchange = self._exchange(reason)
        exchange.status, exchange.outcome = status, outcome
        return exchange.access_record(0.0)

    def _exchange(self, reason: Reason) -> Exchange:
        """A request on this way; its id and times are still to be filled in."""
        request, assigned, record = self.alike.request, self.alike.assigned, self.record(reason)
        record.cold_start = self.is_cold
        return Exchange(
            "", 0.0, request.protocol, request.model, request.version,
            asked_model=assigned.asked_model if assigned is not None else None,
            payload_bytes=request.payload_bytes, record=record,
        )  # fmt: skip


def remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep a value; the oldest goes when there are too many."""
    if len(known) >= _MAX_KNOWN:
        del known[next(iter(known))]
    known[key] = value
