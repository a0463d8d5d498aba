"""What this gateway tells the others of itself, found by looking at what has changed only.

Decides what is worth telling; how that is told, and what of it is news, is the shared state's.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from router.admission.rates import TakenElsewhere
from router.backends.pool.endpoint import Endpoint
from router.domain.clock import Clock
from router.runtime import RuntimeRef
from router.signals.memory import SignalBook
from router.signals.records import Publication
from router.signals.snapshot import CanaryWord, FleetSnapshot, SharedEndpoint

_V = TypeVar("_V")


class Publisher:
    """Counters, ready replicas and load on any of them, model by model, and what goes for all."""

    def __init__(
        self,
        runtime: RuntimeRef,
        book: SignalBook,
        fleet: Callable[[], FleetSnapshot],
        gateway_id: str,
        clock: Clock,
    ) -> None:
        self._runtime = runtime
        self._book = book
        self._fleet = fleet
        self._gateway_id = gateway_id
        self._clock = clock
        self._elsewhere = TakenElsewhere()
        # By model, the endpoints on which the others believe requests of ours.
        self._busy: dict[str, list[str]] = {}
        self._taken: dict[str, int] = {}
        self._canaries: dict[str, CanaryWord] = {}

    def look_at_all(self) -> None:
        """Another configuration is in force: whatever was told may be different now."""
        runtime = self._runtime.current
        self._book.changed.update(runtime.models, runtime.groups, self._busy)

    def changes(self) -> Publication:
        """What may be new since this was called last, and nothing about models at rest."""
        models = self._runtime.current.models
        names = self._book.changed | self._groups_of(self._book.changed)
        publication = Publication(
            {name: models[name].signals.totals() if name in models else None for name in names},
            {name: self._own_replicas(name) or None for name in names},
            self._in_flight_changes(names),
            self._taken_changes(),
            self._canary_changes(),
        )
        self._book.changed.clear()
        self._book.changed.update(self._busy)  # to be looked at until they rest
        return publication

    def _groups_of(self, names: Iterable[str]) -> set[str]:
        """Requests to a model that shares replicas run on those of the shared pool."""
        models = self._runtime.current.models
        return {models[name].group for name in names if name in models} - {""}

    def _endpoints(self, name: str, *, with_shared: bool) -> list[Endpoint]:
        """The replicas of a model or shared pool; those that all gateways find if so asked."""
        runtime = self._runtime.current
        return [
            endpoint
            for owner in (runtime.models.get(name), runtime.groups.get(name))
            # Places on shared replicas are told of as those.
            if owner is not None and owner.pool is not None and owner.driver is not None
            if with_shared or not owner.driver.is_shared
            for endpoint in owner.pool.endpoints.values()
        ]

    def _own_replicas(self, name: str) -> list[SharedEndpoint]:
        return [
            SharedEndpoint(each.id, each.address.url, each.capacity, self._gateway_id)
            for each in self._endpoints(name, with_shared=False)
            if each.is_local and each.is_ready and not each.is_draining
        ]

    def _in_flight_changes(self, names: Iterable[str]) -> dict[str, int | None]:
        in_flight: dict[str, int | None] = {}
        for name in names:
            in_flight.update(dict.fromkeys(self._busy.pop(name, ())))
            endpoints = self._endpoints(name, with_shared=True)
            busy = {each.id: each.in_flight for each in endpoints if each.in_flight}
            if busy:
                in_flight.update(busy)
                self._busy[name] = list(busy)
        return in_flight

    def _taken_changes(self) -> dict[str, int | None]:
        """What was let through here by API key, after hearing what the others have let through."""
        runtime = self._runtime.current
        new = self._elsewhere.since_last(self._fleet().taken)
        runtime.taken_elsewhere(new, self._clock())
        taken = {name: limit.taken for name, limit in runtime.rate_limits.items()}
        before, self._taken = self._taken, taken
        return _differences(before, taken)

    def _canary_changes(self) -> dict[str, CanaryWord | None]:
        canaries = {
            rule: CanaryWord(trial.digest, trial.term, trial.is_rolled_back, trial.step)
            for rule, trial in self._runtime.current.trials.items()
        }
        before, self._canaries = self._canaries, canaries
        return _differences(before, canaries)


def _differences(before: Mapping[str, _V], after: Mapping[str, _V]) -> dict[str, _V | None]:
    gone: dict[str, _V | None] = dict.fromkeys(before.keys() - after.keys())
    return gone | {name: value for name, value in after.items() if before.get(name) != value}
