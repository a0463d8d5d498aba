"""One replica of a warm pool, as the gateway sees it: its slots, its health, how it has been doing.

Says what state it is in. Who gets its slots is the pool's business.
"""

import asyncio
from collections import deque
from enum import StrEnum

from router.admission.adaptive import AdaptiveLimit, AdaptiveParams
from router.admission.circuit import CircuitBreaker, CircuitParams, GrowingPause
from router.policy.estimates import payload_bucket
from router.upstream.address import Address

ENDPOINT_CIRCUIT = CircuitParams(
    failures_to_open=3, pause_s=1.0, max_pause_s=30.0, forgive_ratio=2.0
)
_RECENT = 64
"""So many answers an endpoint is judged by."""
_FIRST_SHARE = 0.1
"""Of its slots, when a slow start begins."""


class EndpointState(StrEnum):
    """What an endpoint is to the pool; all but `ready` and `warming` get no ordinary traffic."""

    READY = "ready"
    WARMING = "warming"
    SLOW = "slow"
    EJECTED = "ejected"
    DRAINING = "draining"
    NOT_READY = "not_ready"


class Endpoint:
    """One addressable replica. Its id is opaque and stable; only operators see its address.

    `is_local` tells replicas that this gateway runs from those another gateway shares. `capacity`
    is what it is believed to work on at once, `slots` how much of that is used while it warms up.
    Drivers drain an endpoint for good; an operator withdraws it, and may give it back. `versions`
    are those of its model that it has, None if that is not known. Of late it has given so many
    `good_answers`, and errors of its model server to whom (`errors`, by tenant). `why_aside` is for
    what it was set aside the last time.
    """

    __slots__ = (
        "_began_at", "_erring_pause", "_erring_until", "_slow_pause", "_slow_until",
        "address", "capacity", "circuit", "drained", "errors", "good_answers", "id", "in_flight",
        "is_draining", "is_local",
        "is_near", "is_ready", "is_withdrawn", "limit", "peer_in_flight", "recent", "slots",
        "versions", "why_aside",
    )  # fmt: skip

    def __init__(self, id: str, address: Address, capacity: int, *, is_local: bool = True) -> None:
        self.id = id
        self.address = address
        self.capacity = self.slots = capacity
        self.is_local = is_local
        self.is_ready = False
        self.is_draining = False
        self.is_withdrawn = False
        self.is_near = True
        self.versions: frozenset[str] | None = None
        self.why_aside = ""
        self.in_flight = 0
        self.peer_in_flight = 0
        self.limit: AdaptiveLimit | None = None
        self.circuit = CircuitBreaker(ENDPOINT_CIRCUIT)
        self.drained = asyncio.Event()
        self.recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self.good_answers = 0
        self.errors: dict[str, int] = {}
        self._erring_until = 0.0
        self._erring_pause = GrowingPause()
        self._slow_until = 0.0
        self._slow_pause = GrowingPause()
        self._began_at: float | None = None

    @property
    def load(self) -> float:
        """Outstanding requests of all gateways over the slots."""
        return (self.in_flight + self.peer_in_flight) / self.slots

    @property
    def replica_capacity(self) -> int:
        """What the whole replica is believed to work on at once."""
        return self.capacity

    @property
    def free(self) -> int:
        """Slots nobody holds."""
        return max(0, self.slots - self.in_flight - self.peer_in_flight)

    def occupy(self) -> None:
        """A request of ours begins there."""
        self.in_flight += 1

    def vacate(self) -> None:
        """A request of ours has ended there."""
        self.in_flight -= 1
        if self.is_draining and self.in_flight == 0:
            self.drained.set()

    def resize(self, capacity: int) -> None:
        """Believe in another capacity, unless it is learned."""
        if self.limit is None:
            self.capacity = self.slots = capacity

    # -- a capacity that is learned --------------------------------------------------------------

    def learns_within(self, params: AdaptiveParams | None) -> None:
        """Learn the capacity within these bounds, or (None) stay with what is believed now."""
        if params is None:
            self.limit = None
        elif self.limit is None or self.limit.params != params:
            self.limit = AdaptiveLimit(params)
            self._take_limit(self.limit)

    def answered(self, limit: AdaptiveLimit, payload_bytes: int, served_s: float) -> None:
        """Learn from a good answer, and from the seconds that it took."""
        outstanding = self.in_flight + self.peer_in_flight
        if limit.observe(payload_bucket(payload_bytes), served_s, outstanding):
            self._take_limit(limit)

    def overburdened(self) -> None:
        """Learn from a request that the endpoint turned away or failed."""
        if self.limit is not None:
            self.limit.refused()
            self._take_limit(self.limit)

    def _take_limit(self, limit: AdaptiveLimit) -> None:
        self.capacity = limit.current
        if self._began_at is None:
            self.slots = limit.current

    # -- what it is to the pool ------------------------------------------------------------------

    @property
    def is_member(self) -> bool:
        """Good in the eyes of its probes, and staying."""
        return self.is_ready and not self.is_draining and not self.is_withdrawn

    def serves(self, version: str | None) -> bool:
        """Whether it may have that version of the model."""
        return version is None or self.versions is None or version in self.versions

    def is_failing(self, now: float) -> bool:
        """Whether its attempts keep failing, or it is set aside for the errors it answers."""
        return self.circuit.is_open(now) or now < self._erring_until

    def is_slow(self, now: float) -> bool:
        """Whether it is set aside for being slow."""
        return now < self._slow_until

    def is_settled(self, now: float) -> bool:
        """Whether it is in the same state until something happens: time alone changes nothing."""
        is_aside = now < self._slow_until or now < self._erring_until
        return self.circuit.is_closed and not is_aside

    def state(self, now: float) -> EndpointState:
        """Its state, in one word."""
        if self.is_draining or self.is_withdrawn:
            return EndpointState.DRAINING
        if not self.is_ready:
            return EndpointState.NOT_READY
        if self.is_failing(now):
            return EndpointState.EJECTED
        if self.is_slow(now):
            return EndpointState.SLOW
        return EndpointState.READY if self.slots == self.capacity else EndpointState.WARMING

    # -- coming and going ------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Let the endpoint take traffic from now on, for the first time or again."""
        self._began_at = now
        self.recent.clear()
        self.forget_answers()

    def forget_answers(self) -> None:
        """Count anew how many of its answers are errors."""
        self.good_answers = 0
        self.errors.clear()

    def set_aside_as_erring(self, now: float) -> None:
        """Leave it alone for a while, for longer each time."""
        self._erring_until = now + self._erring_pause.take(now, self.circuit.params)
        self.begin(self._erring_until)

    def set_aside_as_slow(self, now: float) -> None:
        """Leave it alone for a while, for longer each time."""
        self._slow_until = now + self._slow_pause.take(now, self.circuit.params)
        self.begin(self._slow_until)

    def warm_up(self, now: float, slow_start_s: float) -> bool:
        """Bring the slots up to what its time in traffic allows; returns whether that is all."""
        if self._began_at is None:
            return True
        spent_s = now - self._began_at
        if not slow_start_s or spent_s >= slow_start_s:
            self._began_at = None
            self.slots = self.capacity
            return True
        share = max(spent_s / slow_start_s, _FIRST_SHARE)
        self.slots = max(1, int(share * self.capacity))
        return False
