"""Which models are at rest: a sizing step passes them over.

Of a thousand models most have no traffic at any one time. Whoever has no replica, no request and no
count that grows is sized the same in every step, so that the next one can wait until something of
it changes, or a little time has passed. Decides nothing else.
"""

from collections.abc import Mapping
from typing import NamedTuple

from router.backends.serverless.function import FunctionParams
from router.policy.sizing import Demand, Level
from router.runtime import ModelRuntime
from router.signals.snapshot import FleetSnapshot, ModelTotals

MOST_S = 10.0
"""No model is passed over for longer, whatever may have been overlooked here."""


class _Rest(NamedTuple):
    """What a model was like when its last step found nothing to do."""

    model: ModelRuntime
    until: float
    function: FunctionParams | None
    totals: Mapping[str, ModelTotals]
    arrivals: int
    is_stale: bool


class Resting:
    """The models at rest, by name."""

    def __init__(self) -> None:
        self._known: dict[str, _Rest] = {}

    def note(
        self, model: ModelRuntime, demand: Demand | None, totals: Mapping[str, ModelTotals],
        now: float, *, is_stale: bool,
    ) -> None:  # fmt: skip
        """A step of the model is over, by these counters of each gateway."""
        if not _has_nothing_to_do(model, demand):
            self._known.pop(model.name, None)
            return
        until, function = now + MOST_S, model.serverless
        if function is not None:  # what is expected of it changes once it is cold
            until = min(until, function.environments.cold_at)
        arrivals = model.signals.arrivals
        params = None if function is None else function.params
        self._known[model.name] = _Rest(model, until, params, totals, arrivals, is_stale)

    def holds(
        self, model: ModelRuntime, fleet: FleetSnapshot, now: float, *, is_stale: bool
    ) -> bool:
        """Whether nothing has changed for the model since then."""
        rest = self._known.get(model.name)
        if (
            rest is None
            or rest.model is not model
            or now >= rest.until
            or model.signals.arrivals != rest.arrivals
            or is_stale is not rest.is_stale
            or (model.serverless is not None and model.serverless.params is not rest.function)
            or _is_used(model)
        ):
            return False
        name = model.name
        return name not in fleet.endpoints and all(
            rest.totals.get(peer) == models.get(name) for peer, models in fleet.peers.items()
        )

    def forget(self) -> None:
        """Let the next step pass nobody over."""
        self._known.clear()

    def retain(self, names: Mapping[str, object]) -> None:
        """Forget all models but these."""
        for gone in self._known.keys() - names.keys():
            del self._known[gone]


def _is_used(model: ModelRuntime) -> bool:
    """Whether it has a replica, a request that runs or waits, or jobs that wait."""
    pool, driver, function = model.pool, model.driver, model.serverless
    if model.sizing.waiting is not None or model.sizing.together is not None:
        return True
    if pool is not None and (pool.endpoints or pool.queue.waiters):
        return True
    is_called = function is not None and function.in_flight > 0
    return is_called or (driver is not None and driver.billed > 0)


def _has_nothing_to_do(model: ModelRuntime, demand: Demand | None) -> bool:
    state, function = model.sizing, model.serverless
    if model.group or _is_used(model) or state.arrivals_per_s or state.load or state.wanted:
        return False
    if model.driver is not None and model.driver.is_shared:
        return False  # it is told again and again
    if function is not None and function.params.kept_warm.usd_per_s:
        return False
    is_asked = demand is not None and (demand.held or demand.latency_duty)
    return not is_asked and not any(map(_moves, state.levels))


def _moves(level: Level) -> bool:
    """Whether time alone changes a level that has nothing to carry."""
    return bool(level.counter_usd) or level.bought_at is not None or level.running_since is not None
