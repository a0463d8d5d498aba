"""The endpoints of one model's warm pool: which exist, which take traffic, who holds their slots.

Drivers add and remove endpoints, probes and attempts judge them, the director reserves slots.
Picking and reserving is one step without an await in between.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from router.admission.adaptive import AdaptiveParams
from router.admission.circuit import CircuitParams
from router.admission.line import Ticket, ticket_of
from router.admission.outliers import MIN_ANSWERS, USUAL_OUTLIERS, OutlierParams
from router.admission.slots import SlotQueue, Waiter
from router.admission.uploads import Unfinished, Uploads
from router.backends.pool.caller import PoolCaller
from router.backends.pool.endpoint import ENDPOINT_CIRCUIT, Endpoint
from router.backends.pool.lease import PoolLease
from router.backends.pool.rotation import Rotation, RotationParams
from router.domain.clock import Clock
from router.domain.decision import Verdict
from router.domain.events import EventKind, Fact, told
from router.domain.request import InferenceRequest
from router.domain.snapshot import PoolSnapshot
from router.policy.estimates import DurationEstimate, ServiceTimes
from router.policy.exploration import Exploration
from router.policy.pickers import least_loaded, nearest_first, sticky

_log = logging.getLogger(__name__)

ALL_SLOTS = 1 << 30
"""Of slots that requests would have without jobs: as many as there are."""


@dataclass(frozen=True, slots=True)
class PoolParams:
    """Bounds and priors of a pool; a reload replaces them and the endpoints stay.

    `can_start` says that somebody starts replicas when they are wanted, `is_last_resort` that the
    model has no other backend. For `slow_start_s` an endpoint that begins has fewer slots.
    With `adaptive`, what an endpoint works on at once is learned within these bounds.
    """

    enabled: bool
    can_start: bool
    max_queued: int
    max_queued_bytes: int
    service_time_s: float
    startup_s: float
    is_last_resort: bool = False
    slow_start_s: float = 0.0
    circuit: CircuitParams = ENDPOINT_CIRCUIT
    outliers: OutlierParams = USUAL_OUTLIERS
    adaptive: AdaptiveParams | None = None


def _rotation_params(params: PoolParams) -> RotationParams:
    return RotationParams(params.outliers, params.is_last_resort, params.slow_start_s)


class Pool:
    """All endpoints of one model, and the requests that wait for them."""

    def __init__(
        self,
        model: str,
        params: PoolParams,
        caller: PoolCaller,
        clock: Clock,
        rng: Random,
        changed: set[str] | None = None,
    ) -> None:
        """The model's name goes into `changed` when other gateways may want to hear of the pool."""
        self.changed: set[str] = set() if changed is None else changed
        self.model = model
        self.params = params
        self.wanted = 0
        self.wake: Callable[[], None] = lambda: None
        self.signals_stale = False
        self.is_sized_by_others = False
        self.starting_since: float | None = None
        self.missing = ""
        self.service_times = ServiceTimes(params.service_time_s)
        self.exploration = Exploration()
        self.startup = DurationEstimate(params.startup_s)
        self.endpoints: dict[str, Endpoint] = {}
        self.populated = asyncio.Event()
        """Set while there is an endpoint."""
        self._used_s: defaultdict[str, float] = defaultdict(float)
        self.ejections = 0
        self.has_answered = False
        self._uploads = Uploads()
        self.rotation = Rotation(self.endpoints, _rotation_params(params))
        self._choose: Callable[[Sequence[Endpoint], Random], Endpoint | None] = least_loaded
        self.caller = caller
        self._clock = clock
        self._rng = rng
        self.held_by_jobs = 0
        self.slots_alone = ALL_SLOTS
        self.delayed_by_jobs = 0
        self.queue: SlotQueue[Endpoint] = SlotQueue(
            params.max_queued, params.max_queued_bytes, self._free
        )

    def reconfigure(self, params: PoolParams) -> None:
        """Take new bounds; endpoints, queue and estimates stay."""
        self.params = params
        self.queue.max_requests = params.max_queued
        self.queue.max_bytes = params.max_queued_bytes
        for endpoint in self.endpoints.values():
            endpoint.circuit.params = params.circuit
            endpoint.learns_within(params.adaptive)
        self.rotation.params = _rotation_params(params)
        self._members_changed()

    # -- what the policy sees ------------------------------------------------------------------

    def snapshot(
        self,
        payload_bytes: int,
        now: float,
        version: str | None = None,
        ticket: Ticket | None = None,
        requests: int = 0,
    ) -> PoolSnapshot:
        """The pool as it is now, for a request of that size to that version of the model.

        `ticket` is the request's place in the queue; without one, it would be the last.
        `requests` is how many have come for the model.
        """
        ready = self.rotation.serving(now, version)
        waiting = len(self.queue)
        queued, queued_bytes = self.queue.seen_by(ticket)
        service = self.service_times.estimate(payload_bytes)
        return PoolSnapshot(
            enabled=self.params.enabled,
            can_start=self.params.can_start,
            ready=len(ready),
            wanted=self.wanted,
            slots=sum(endpoint.slots for endpoint in ready),
            # Whoever waits goes first.
            free_slots=0 if waiting else sum(endpoint.free for endpoint in ready),
            queued=queued,
            queued_bytes=queued_bytes,
            max_queued=self.queue.max_requests,
            max_queued_bytes=self.queue.max_bytes,
            expected_s=service.mean_s,
            upper_s=service.upper_s,
            ready_in_s=0.0 if ready else self._ready_in_s(now),
            signals_stale=self.signals_stale,
            may_try=self.exploration.is_due(payload_bytes, service.count, requests, now),
            missing=self.missing,
        )

    def _ready_in_s(self, now: float) -> float:
        waited_s = now - self.starting_since if self.starting_since is not None else 0.0
        return max(self.startup.mean_s - waited_s, 0.0)

    # -- slots -----------------------------------------------------------------------------------

    def try_reserve(
        self, request: InferenceRequest, now: float, avoid: Collection[str] = ()
    ) -> PoolLease | None:
        """A slot of the best endpoint, None if all are busy or others wait."""
        if len(self.queue):
            return None
        endpoint = self._pick(request, now, avoid)
        if endpoint is None:
            return None
        self._occupy(endpoint, now)
        return self._leased(request, endpoint, now)

    def reserve_warm(self, now: float) -> Endpoint | None:
        """As `try_reserve`, without a lease: the caller settles the endpoint itself."""
        if self.queue.waiters:
            return None
        endpoint = self._choose(self.rotation.available(now), self._rng)
        if endpoint is not None:
            self._occupy(endpoint, now)
        return endpoint

    def reserve_warm_version(self, version: str, now: float) -> Endpoint | None:
        """As `reserve_warm`, for a request to that version of the model."""
        if self.queue.waiters:
            return None
        endpoint = self._choose(self.rotation.serving(now, version), self._rng)
        if endpoint is not None:
            self._occupy(endpoint, now)
        return endpoint

    def lease_of(self, endpoint: Endpoint, since: float) -> PoolLease:
        """A lease for a slot that `reserve_warm` has given."""
        return PoolLease(self, endpoint, self.caller, self._clock, since)

    async def reserve(
        self, request: InferenceRequest, timeout_s: float, avoid: Collection[str] = ()
    ) -> PoolLease:
        """Wait for a slot, and see that a replica is started if none is wanted yet."""
        give_up_at = self._clock() + timeout_s
        self.call_for_capacity()
        while True:
            waiter = Waiter()
            self.join(waiter, request)
            _, endpoint = await waiter.slot(max(give_up_at - self._clock(), 0.0))
            lease = self.lease(request, endpoint, avoid)
            if lease is not None:
                return lease

    def call_for_capacity(self) -> None:
        """Somebody waits: see that a replica is started if none is wanted yet."""
        if not self.wanted:
            # Only then: under overload every request waits, and sizing must not run for each.
            self.wake()

    def join(self, waiter: Waiter, request: InferenceRequest) -> None:
        """Let a request wait for a slot. Raises QueueFullError."""
        if self.held_by_jobs and not request.is_job and self._is_delayed_by_jobs():
            self.delayed_by_jobs += 1
        self.queue.join(waiter, ticket_of(request))
        if self.rotation.is_mixed:
            # Whoever waits for a version must not keep others from replicas without it.
            asyncio.get_running_loop().call_soon(self._pump_now)

    def _is_delayed_by_jobs(self) -> bool:
        """Whether a request that has to wait would have had a slot without jobs."""
        return self.in_flight - self.held_by_jobs < min(self.slots_alone, self.slots)

    def lease(
        self, request: InferenceRequest, endpoint: Endpoint, avoid: Collection[str] = ()
    ) -> PoolLease | None:
        """The slot that such a request was handed; None if it cannot use it and must wait on."""
        now = self._clock()
        if not self._suits(request, endpoint, now, avoid):
            self._free(endpoint)  # for whoever comes next
            other = self._pick(request, now, avoid)
            if other is None:
                return None
            self._occupy(other, now)
            endpoint = other
        return self._leased(request, endpoint, now)

    def _leased(self, request: InferenceRequest, endpoint: Endpoint, now: float) -> PoolLease:
        self.held_by_jobs += request.is_job
        return PoolLease(self, endpoint, self.caller, self._clock, now, is_job=request.is_job)

    def job_left(self) -> None:
        """A job holds a slot no more."""
        self.held_by_jobs -= 1

    def _suits(
        self, request: InferenceRequest, endpoint: Endpoint, now: float, avoid: Collection[str]
    ) -> bool:
        """Whether the request can use a slot there: not where it failed, while there are others."""
        version = request.version
        if endpoint.id in avoid and self.others_available(avoid, now):
            return False
        return version is None or endpoint.serves(version) or not self.rotation.is_known(version)

    def pump(self, now: float) -> None:
        """Hand free slots to waiting requests; called whenever an endpoint may have come free."""
        while self.hand_over_one(now):
            pass

    def hand_over_one(self, now: float) -> bool:
        """Hand a free slot to the request whose turn it is; False if nobody waits, or none is."""
        if not len(self.queue):
            return False
        endpoint = self._choose(self.rotation.available(now), self._rng)
        if endpoint is None:
            # While requests wait, who failed is tried again soon, however often it failed.
            endpoint = self.rotation.to_be_tried(now)
        if endpoint is None:
            return False
        self._occupy(endpoint, now)
        if not self.queue.hand_over(endpoint):
            self._vacate_unused(endpoint)
        return True

    def takes_upload(self, request: InferenceRequest, upload: Unfinished, now: float) -> bool:
        """Whether a slot may be held for a body that is still to come (see `Uploads`).

        It is then counted until it is complete, or until `upload_left`.
        """
        serving = self.rotation.serving(now, request.version)
        slots = sum(endpoint.slots for endpoint in serving)
        taken = sum(endpoint.peer_in_flight for endpoint in serving)
        tenant, weight = request.tenant or "", request.weight
        return self._uploads.enter(upload, tenant, weight, slots=slots, taken=taken)

    def upload_left(self, upload: Unfinished) -> None:
        """A slot is no longer held for that body."""
        self._uploads.leave(upload)

    def others_available(self, avoid: Collection[str], now: float) -> bool:
        """Whether an endpoint takes traffic that is not among those to avoid."""
        return any(endpoint.id not in avoid for endpoint in self.rotation.available(now))

    def _pick(
        self, request: InferenceRequest, now: float, avoid: Collection[str]
    ) -> Endpoint | None:
        available = self.rotation.serving(now, request.version)
        if avoid:
            available = [endpoint for endpoint in available if endpoint.id not in avoid]
        if request.sequence_id is not None:
            return sticky(available, request.sequence_id, self._rng)
        return self._choose(available, self._rng)

    def _occupy(self, endpoint: Endpoint, now: float) -> None:
        self.changed.add(self.model)
        endpoint.occupy()
        endpoint.circuit.admit(now)

    def _vacate_unused(self, endpoint: Endpoint) -> None:
        endpoint.circuit.not_tried()
        endpoint.vacate()

    def _free(self, endpoint: Endpoint) -> None:
        self._vacate_unused(endpoint)
        self._pump_now()

    def _pump_now(self) -> None:
        self.pump(self._clock())

    def release(
        self, endpoint: Endpoint, verdict: Verdict, since: float, now: float, tenant: str = ""
    ) -> float:
        """A tenant's attempt that began at `since` has ended. Callers release exactly once.

        Returns the seconds of a whole replica that it took.
        """
        used_s = (now - since) / endpoint.replica_capacity
        self._used_s[tenant] += used_s
        if verdict is Verdict.OK:
            endpoint.good_answers += 1
            if endpoint.circuit.succeeded():
                endpoint.begin(now)
        elif verdict is Verdict.UNTRIED or verdict is Verdict.MODEL_ERROR:
            endpoint.circuit.not_tried()
        elif verdict is not Verdict.CANCELLED:
            endpoint.overburdened()
            # One that refuses is always free: unless set aside, it would draw all traffic. One
            # that is only full is back with the next request of ours that it answers.
            if endpoint.circuit.failed(now):
                facts = {"pause_s": round(endpoint.circuit.open_for_s(now), 1)}
                self._set_aside(endpoint, "its attempts fail", facts)
        endpoint.vacate()
        if self.queue.waiters:
            self.pump(now)
        return used_s

    def take_used_s(self) -> dict[str, float]:
        """The seconds of whole replicas that tenants' attempts took which ended since last asked.

        An attempt takes the time for which it held a slot, over the slots of its replica.
        """
        used_s, self._used_s = self._used_s, defaultdict(float)
        return used_s

    def learn(self, endpoint: Endpoint, payload_bytes: int, served_s: float) -> None:
        """An endpoint has answered a request of that size well, in so many seconds."""
        self.service_times.observe(payload_bytes, served_s)
        endpoint.recent.append((payload_bytes, served_s))
        if endpoint.limit is not None:
            self.changed.add(self.model)
            endpoint.answered(endpoint.limit, payload_bytes, served_s)

    def erred(self, endpoint: Endpoint, request: InferenceRequest) -> None:
        """An endpoint has answered a request with an error of its model server.

        Those of a sequence go where its client wants them to, so they are no witnesses.
        """
        if request.sequence_id is not None:
            return
        caller = request.tenant or ""
        endpoint.errors[caller] = endpoint.errors.get(caller, 0) + 1
        if sum(endpoint.errors.values()) == MIN_ANSWERS:
            self.rotation.suspicion.set()

    def _set_aside(self, endpoint: Endpoint, why: str, facts: Mapping[str, Fact]) -> None:
        self.ejections += 1
        endpoint.why_aside = why
        self._members_changed()
        self.rotation.suspicion.set()
        _log.info(
            "model %s: endpoint %s is set aside: %s", self.model, endpoint.id, why,
            extra=told(EventKind.EJECTION, self.model, endpoint=endpoint.id, why=why, **facts),
        )  # fmt: skip

    def _members_changed(self) -> None:
        self.changed.add(self.model)
        self.rotation.changed()

    # -- what drivers and probes say ---------------------------------------------------------------

    def judge(self, now: float) -> int:
        """Set aside endpoints that do far worse than the others, as many as may be.

        Returns how many: those that answer with errors, and those that are far slower.
        """
        erring = list(self.rotation.erring(now))
        for endpoint in erring:
            errors, good = sum(endpoint.errors.values()), endpoint.good_answers
            endpoint.set_aside_as_erring(now)
            facts: dict[str, Fact] = {"errors": errors, "good_answers": good}
            self._set_aside(endpoint, f"{errors} errors beside {good} good answers", facts)
        slow = list(self.rotation.far_slower(self.service_times, now))
        for endpoint in slow:
            mean_s = sum(seconds for _, seconds in endpoint.recent) / len(endpoint.recent)
            endpoint.set_aside_as_slow(now)
            why = f"far slower than the others, {mean_s * 1e3:.1f} ms of late"
            self._set_aside(endpoint, why, {"mean_ms": round(mean_s * 1e3, 3)})
        return len(erring) + len(slow)

    def add(self, endpoint: Endpoint) -> None:
        """A new endpoint; it takes traffic once it is marked ready."""
        endpoint.circuit.params = self.params.circuit
        endpoint.learns_within(self.params.adaptive)
        self.endpoints[endpoint.id] = endpoint
        self.populated.set()
        self.exploration.renewed()
        self._members_changed()

    def mark_ready(self, endpoint_id: str, *, is_ready: bool) -> None:
        """A probe's verdict. A good one re-admits an endpoint that was set aside."""
        endpoint = self.endpoints.get(endpoint_id)
        if endpoint is None:
            return
        if is_ready and not endpoint.is_ready:
            endpoint.circuit.succeeded()
            endpoint.begin(self._clock())
        endpoint.is_ready = is_ready
        self.has_answered = self.has_answered or is_ready
        self._members_changed()
        if is_ready:
            self.pump(self._clock())

    def drain(self, endpoint_id: str) -> asyncio.Event:
        """Send nothing new there; the event is set once nothing is in flight."""
        endpoint = self.endpoints[endpoint_id]
        endpoint.is_draining = True
        self._members_changed()
        if endpoint.in_flight == 0:
            endpoint.drained.set()
        return endpoint.drained

    def prefer(self, near: Collection[str] | None) -> None:
        """Use these first, by id, for as long as they have room; None: all alike."""
        for endpoint in self.endpoints.values():
            endpoint.is_near = near is None or endpoint.id in near
        alike = all(endpoint.is_near for endpoint in self.endpoints.values())
        self._choose = least_loaded if alike else nearest_first

    def stay(self, endpoint_id: str) -> None:
        """The endpoint was being drained, and is to stay after all."""
        endpoint = self.endpoints[endpoint_id]
        endpoint.is_draining, endpoint.drained = False, asyncio.Event()
        self._members_changed()

    def withdraw(self, endpoint_id: str, *, is_withdrawn: bool) -> Endpoint | None:
        """An operator's wish: nothing new there, or again; None if there is no such endpoint."""
        endpoint = self.endpoints.get(endpoint_id)
        if endpoint is None:
            return None
        if endpoint.is_withdrawn and not is_withdrawn:
            endpoint.begin(self._clock())
        endpoint.is_withdrawn = is_withdrawn
        self._members_changed()
        self._pump_now()
        return endpoint

    def remove(self, endpoint_id: str) -> None:
        """The endpoint is gone; attempts under way there fail by themselves."""
        self.endpoints.pop(endpoint_id, None)
        if not self.endpoints:
            self.populated.clear()
        self._members_changed()

    @property
    def is_panicking(self) -> bool:
        """Whether so many endpoints are bad that bad ones may be used again."""
        return self.rotation.is_panicking(self._clock())

    @property
    def ready(self) -> int:
        """Endpoints that take traffic now."""
        return len(self.rotation.available(self._clock()))

    @property
    def learned_capacity(self) -> float | None:
        """What an endpoint has been found to work on at once, on average; None if not learned."""
        learned = [
            endpoint.capacity for endpoint in self.rotation.members() if endpoint.limit is not None
        ]
        return sum(learned) / len(learned) if learned else None

    @property
    def slots(self) -> int:
        """Requests that the endpoints in traffic are believed to work on at once."""
        return sum(endpoint.slots for endpoint in self.rotation.available(self._clock()))

    @property
    def in_flight(self) -> int:
        """Requests of this gateway at the pool's endpoints."""
        return sum(endpoint.in_flight for endpoint in self.endpoints.values())
