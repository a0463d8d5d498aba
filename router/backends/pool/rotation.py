"""Which endpoints of a pool take traffic now, and for which version of the model.

Remembers the answer while nothing but an event can change it. Reserves no slot.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from router.admission.outliers import (
    MIN_SAMPLES,
    Answered,
    OutlierParams,
    erring_ones,
    in_rotation,
    may_set_aside,
    pace_of,
    panics,
    slow_ones,
)
from router.backends.pool.endpoint import Endpoint
from router.policy.estimates import ServiceTimes

_COUNTED_S = 10.0
"""For so long answers are counted, before it begins anew."""


@dataclass(frozen=True, slots=True)
class RotationParams:
    """`is_last_resort` says that the model has no other backend; see `admission.outliers`."""

    outliers: OutlierParams
    is_last_resort: bool
    slow_start_s: float


class Rotation:
    """The endpoints in traffic, of those in `endpoints`, which is the pool's own.

    `suspicion` is set when probes should not wait for their next round, `versions_matter` once a
    client has asked for a version of the model. `on_change` is told of every change.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], params: RotationParams) -> None:
        self.params = params
        self.suspicion = asyncio.Event()
        self.versions_matter = False
        self.on_change: Callable[[], None] | None = None
        self._endpoints = endpoints
        self._counts_since = 0.0
        # None when each must be asked: after a change, and while a circuit is open or an endpoint
        # warms up, when it depends on the time.
        self._traffic: list[Endpoint] | None = None

    def changed(self) -> None:
        """An endpoint came, left, or is in another state."""
        self._traffic = None
        if self.on_change is not None:
            self.on_change()

    def available(self, now: float) -> list[Endpoint]:
        """The endpoints that take traffic."""
        if self._traffic is not None:
            return self._traffic
        params = self.params
        found = in_rotation(
            self.members(), params.outliers, now, is_last_resort=params.is_last_resort
        )
        endpoints = self._endpoints.values()
        warm = [endpoint.warm_up(now, params.slow_start_s) for endpoint in endpoints]
        if all(warm) and all(endpoint.is_settled(now) for endpoint in endpoints):
            self._traffic = found
        return found

    def serving(self, now: float, version: str | None) -> list[Endpoint]:
        """The endpoints that take traffic and may have the version.

        A version that no endpoint is known to have goes anywhere: the replica knows better.
        """
        available = self.available(now)
        if version is None:
            return available
        if not self.versions_matter:
            self.versions_matter = True
            self.suspicion.set()  # they are asked for now
        if not self.is_known(version):
            return available
        return [endpoint for endpoint in available if endpoint.serves(version)]

    def to_be_tried(self, now: float) -> Endpoint | None:
        """An endpoint that is set aside for failures, and may have a request to prove itself."""
        candidates = (one for one in self.members() if one.is_failing(now) and one.load < 1)
        return next((one for one in candidates if one.circuit.may_be_tried(now)), None)

    def is_known(self, version: str) -> bool:
        """Whether any endpoint is known to have the version."""
        return version in self.known_versions

    @property
    def known_versions(self) -> frozenset[str]:
        """The versions that any endpoint is known to have."""
        return frozenset().union(*(each.versions or () for each in self._endpoints.values()))

    @property
    def is_mixed(self) -> bool:
        """Whether endpoints differ in what is known of their versions."""
        return len({endpoint.versions for endpoint in self._endpoints.values()}) > 1

    def members(self) -> list[Endpoint]:
        """The endpoints whose probes are good, and that are not about to leave."""
        return [endpoint for endpoint in self._endpoints.values() if endpoint.is_member]

    def is_panicking(self, now: float) -> bool:
        """Whether so many endpoints are bad that bad ones may be used again."""
        params = self.params
        return panics(self.members(), params.outliers, now, is_last_resort=params.is_last_resort)

    def erring(self, now: float) -> Iterator[Endpoint]:
        """Endpoints to set aside for answering errors where others do not, as many as may be."""
        members = [endpoint for endpoint in self.members() if not endpoint.is_failing(now)]
        answered = {
            endpoint.id: Answered(endpoint.good_answers, endpoint.errors) for endpoint in members
        }
        for id_ in erring_ones(answered)[: self._may_set_aside(now)]:
            yield self._endpoints[id_]
        if now - self._counts_since >= _COUNTED_S:
            self._counts_since = now
            for endpoint in self._endpoints.values():
                endpoint.forget_answers()

    def _may_set_aside(self, now: float) -> int:
        members = self.members()
        aside = sum(endpoint.is_failing(now) or endpoint.is_slow(now) for endpoint in members)
        return may_set_aside(len(members), aside, self.params.outliers)

    def far_slower(self, service_times: ServiceTimes, now: float) -> Iterator[Endpoint]:
        """Endpoints to set aside for being far slower than the others, as many as may be."""
        members, usual = self.members(), service_times.estimate
        paces = {
            endpoint.id: pace_of([(s, usual(size).mean_s) for size, s in endpoint.recent])
            for endpoint in members
            if len(endpoint.recent) >= MIN_SAMPLES and not endpoint.is_slow(now)
        }
        for id_ in slow_ones(paces, self.params.outliers)[: self._may_set_aside(now)]:
            yield self._endpoints[id_]
