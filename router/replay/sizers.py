"""Who says how many replicas there should be: the router's own policy, a baseline, a schedule.

Each is asked at its own interval. The first is what `serve` runs.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Protocol

import numpy as np
import numpy.typing as npt

from router.policy.deferral import NOTHING, Deferral, Together, Waiting, size_jointly
from router.policy.demand import FunctionFacts, PoolFacts, Rates, demand_from
from router.policy.sizing import Demand, Level, Sizing, SizingParams, size
from router.policy.steering import Slo
from router.replay.baselines import Baseline, Tick
from router.signals.snapshot import ModelTotals

_ROUNDING = 1e-6
_NO_RATES = Rates(0.0, 0.0, 0.0, 0.0, 0.0)


class Observed(Protocol):
    """What a sizer may see of the simulated gateway."""

    busy_s: float
    """Slot-seconds of all requests that have ended in the pool."""

    def totals(self, now: float) -> ModelTotals:
        """The model's counters, as far as they are known by now."""
        ...

    @property
    def queued(self) -> int:
        """Requests that wait for a replica."""
        ...

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        ...

    @property
    def wanted(self) -> int:
        """Replicas asked for last."""
        ...

    @property
    def startup_s(self) -> float:
        """How long a replica is believed to start."""
        ...

    def function(self, now: float) -> FunctionFacts | None:
        """The function as it is believed to be, for a usual payload."""
        ...


class Sizer(Protocol):
    """Says how many replicas are wanted, every `interval_s`."""

    @property
    def interval_s(self) -> float:
        """Seconds between two questions."""
        ...

    def wanted(self, observed: Observed, now: float) -> int:
        """How many replicas are wanted from now on."""
        ...

    def next_step(self, now: float) -> float:
        """When to ask again."""
        ...

    @property
    def calm_usd(self) -> float | None:
        """While requests within `window_s` cost no more than that on serverless, every further step
        would say the same; None if that is not known.
        """
        ...

    @property
    def window_s(self) -> float:
        """How far steps look back."""
        ...

    @property
    def window_began(self) -> ModelTotals:
        """The counters when the last step's window began."""
        ...

    @property
    def has_duty(self) -> bool:
        """Whether a replica is kept because the function alone would break the objective."""
        ...

    def wake(self, last: float, history: Sequence[tuple[float, ModelTotals]]) -> None:
        """Be as if asked at every step up to `last`, with the totals that `history` tells."""
        ...


class _Restless:
    """A sizer that is asked at every step."""

    calm_usd: float | None = None
    window_s = 0.0
    window_began = ModelTotals()
    has_duty = False

    def wake(self, last: float, history: Sequence[tuple[float, ModelTotals]]) -> None:
        """Never called: such a sizer does not rest. Raises NotImplementedError."""
        raise NotImplementedError


class Recent:
    """What `signals.window.Window` keeps of one gateway, with runs of equal samples kept as one.

    Samples come every `interval_s`; those that were left out between two equal ones are as good as
    there.
    """

    def __init__(self, window_s: float, interval_s: float) -> None:
        self.window_s = window_s
        self._interval_s = interval_s
        # First and last time at which the totals were seen like this.
        self._runs: deque[tuple[float, float, ModelTotals]] = deque()

    def add(self, now: float, totals: ModelTotals) -> None:
        """The counters at one more step."""
        runs = self._runs
        if runs and runs[-1][2] == totals:
            since, last, _ = runs[-1]
            steps = (now - last) / self._interval_s
            if abs(steps - round(steps)) < _ROUNDING:
                runs[-1] = since, now, totals
                return
        runs.append((now, now, totals))
        while len(runs) > 1 and runs[1][0] <= now - self.window_s:
            runs.popleft()

    def rates(self, now: float) -> Rates:
        """Every counter's increase per second over the window that ends now."""
        since, last, then = self._runs[0]
        totals = self._runs[-1][2]
        steps = int((min(now - self.window_s, last) - since) / self._interval_s + _ROUNDING)
        elapsed_s = now - (since + max(steps, 0) * self._interval_s)
        if elapsed_s <= 0 or totals is then:
            return _NO_RATES
        return Rates(*((new - old) / elapsed_s for new, old in zip(totals, then, strict=True)))

    def smoothed(self, now: float) -> tuple[float, float]:
        """Work and price on serverless, averaged over the steps of the window that ends now.

        The rates of steps in a row add up to the difference of these.
        """
        work_s = usd = 0.0
        steps = max(round(self.window_s / self._interval_s), 1)
        place = len(self._runs) - 1
        for back in range(steps):
            at = now - back * self._interval_s + _ROUNDING
            while place > 0 and self._runs[place][0] > at:
                place -= 1
            totals = self._runs[place][2]
            work_s += totals.work_s
            usd += totals.serverless_usd
        return work_s / steps, usd / steps

    @property
    def oldest(self) -> ModelTotals:
        """The counters when the window began."""
        return self._runs[0][2]

    @property
    def latest(self) -> ModelTotals:
        """The counters as they were last told."""
        return self._runs[-1][2]


class RouterSizer:
    """The router's own sizing, fed as the controller feeds it.

    It need not be asked while no step could change anything. `calm_usd` says, after each step, how
    much requests may cost on serverless within a window before that ends; None if it has ended.
    """

    def __init__(
        self, params: SizingParams, slo: Slo, concurrency: int, interval_s: float, window_s: float
    ) -> None:
        self.interval_s = interval_s
        self.window_s = window_s
        self.calm_usd: float | None = None
        self.has_duty = False
        self._params = params
        self._slo = slo
        self._concurrency = concurrency
        self._recent = Recent(window_s, interval_s)
        self._levels: tuple[Level, ...] = ()
        self._wanted = 0
        self._asked_at: float | None = None
        self._demand = Demand(0.0, 0.0)

    def wanted(self, observed: Observed, now: float) -> int:
        """One step of the controller."""
        dt = now - self._asked_at if self._asked_at is not None else 0.0
        self._asked_at = now
        self._recent.add(now, observed.totals(now))
        rates = self._recent.rates(now)
        pool = PoolFacts(self._concurrency, observed.queued, observed.ready)
        demand = self._demand = self._demanded(rates, pool, observed, now)
        self._params = replace(self._params, startup_s=observed.startup_s)
        sizing, may_rest = self._sized(demand, dt, now)
        is_calm = (
            dt > 0
            and may_rest
            and sizing.wanted == self._wanted
            and not demand.held
            and not demand.captive_load
            and all(map(_is_calm, sizing.levels))
        )
        self.has_duty = demand.latency_duty
        self.calm_usd = self._params.replica_usd_per_s * self.window_s if is_calm else None
        self._levels, self._wanted = sizing.levels, sizing.wanted
        return sizing.wanted

    def _demanded(self, rates: Rates, pool: PoolFacts, observed: Observed, now: float) -> Demand:
        return demand_from(rates, pool, self._slo, observed.function(now))

    def _sized(self, demand: Demand, dt: float, now: float) -> tuple[Sizing, bool]:
        """One step of the levels, and whether the next ones may be left out if nothing comes."""
        return size(self._params, self._levels, demand, dt, now), True

    @property
    def window_began(self) -> ModelTotals:
        """The counters when the last step's window began."""
        return self._recent.oldest

    def next_step(self, now: float) -> float:
        """One interval later."""
        return now + self.interval_s

    def wake(self, last: float, history: Sequence[tuple[float, ModelTotals]]) -> None:
        """Be as if asked at every step up to `last`, with the totals that `history` tells."""
        assert self._asked_at is not None  # noqa: S101
        before, dt = self._recent.latest, last - self._asked_at
        if dt <= 0:
            return
        smoothed = self._recent.smoothed(self._asked_at)
        # Requests at the very time of a step come after it.
        place, steps = 0, int(self.window_s / self.interval_s) + 2
        for back in range(min(steps, round(dt / self.interval_s) - 1), -1, -1):
            at = last - back * self.interval_s
            while place < len(history) and history[place][0] < at:
                place += 1
            self._recent.add(at, history[place - 1][1] if place else before)
        work_s, usd = (
            now - then for now, then in zip(self._recent.smoothed(last), smoothed, strict=True)
        )
        demand = self._demand._replace(
            load=work_s / self._concurrency / dt, serverless_usd_per_s=usd / dt
        )
        # Counters at 0 stay there, and all else that a level holds grows by so much each second.
        self._levels = size(self._params, self._levels, demand, dt, last).levels
        self._asked_at = last


class SharedSizer(RouterSizer):
    """The router's sizer for models that share replicas, each with a function of its own."""

    def __init__(
        self,
        params: SizingParams,
        slo: Slo,
        concurrency: int,
        times: tuple[float, float],
        has_duty: Callable[[float], bool],
    ) -> None:
        """`times` are the interval and the window; `has_duty` says whether any model has one."""
        super().__init__(params, slo, concurrency, *times)
        self._any_has_duty = has_duty

    def _demanded(self, rates: Rates, pool: PoolFacts, observed: Observed, now: float) -> Demand:
        demand = super()._demanded(rates, pool, observed, now)
        return demand._replace(latency_duty=self._any_has_duty(now))


class JointSizer(RouterSizer):
    """The same with jobs that wait beside the requests."""

    def __init__(
        self,
        params: SizingParams,
        slo: Slo,
        concurrency: int,
        times: tuple[float, float],
        waiting: Callable[[float], Waiting | None],
    ) -> None:
        """`times` are the interval and the window; `waiting` tells what jobs ask for now."""
        super().__init__(params, slo, concurrency, *times)
        self._waiting = waiting
        self._together: Together | None = None
        self.deferral: Deferral = NOTHING
        self.arrivals_per_s = 0.0
        self.alone = 0

    def _demanded(self, rates: Rates, pool: PoolFacts, observed: Observed, now: float) -> Demand:
        self.arrivals_per_s = rates.arrivals
        return super()._demanded(rates, pool, observed, now)

    def _sized(self, demand: Demand, dt: float, now: float) -> tuple[Sizing, bool]:
        waiting = self._waiting(now)
        if waiting is None:
            self._together, self.deferral = None, NOTHING
            sizing, may_rest = super()._sized(demand, dt, now)
            self.alone = sizing.wanted
            return sizing, may_rest
        state = self._levels, self._together
        both = size_jointly(self._params, state, demand, waiting, self._concurrency, (dt, now))
        self._together, self.deferral = both.state, both.deferral
        self.alone = both.alone
        return both.sizing, False


def _is_calm(level: Level) -> bool:
    """Whether the level does nothing, and will not while its work is cheaper than a replica."""
    return (
        level.counter_usd == 0
        and level.bought_at is None
        and level.running_since is None
        and not level.gave_up
    )


class BaselineSizer(_Restless):
    """A baseline, told what happened since it was last asked."""

    def __init__(self, baseline: Baseline, concurrency: int) -> None:
        self.interval_s = baseline.interval_s
        self._baseline = baseline
        self._concurrency = concurrency
        self._before = ModelTotals()
        self._busy_before = 0.0
        self._asked_at = 0.0

    def wanted(self, observed: Observed, now: float) -> int:
        """Ask the baseline."""
        totals, busy_s = observed.totals(now), observed.busy_s
        dt = now - self._asked_at
        offered_s = observed.ready * self._concurrency * dt
        tick = Tick(
            now=now,
            dt=dt,
            arrivals=totals.arrivals - self._before.arrivals,
            work_s=(totals.work_s - self._before.work_s) / self._concurrency,
            busy_ratio=min(1.0, (busy_s - self._busy_before) / offered_s) if offered_s else 0.0,
            ready=observed.ready,
            wanted=observed.wanted,
            queued=observed.queued,
        )
        self._before, self._busy_before, self._asked_at = totals, busy_s, now
        return self._baseline.wanted(tick)

    def next_step(self, now: float) -> float:
        """One interval later."""
        return now + self.interval_s


class ScheduleSizer(_Restless):
    """Launches what a schedule says, bin by bin; its first bin holds for all time before it."""

    def __init__(self, launched: npt.NDArray[np.int64], dt: float, begins_s: float = 0.0) -> None:
        self.interval_s = dt
        self._launched = launched
        self._begins_s = begins_s
        self._changes = np.flatnonzero(np.diff(launched)) + 1

    def wanted(self, observed: Observed, now: float) -> int:
        """The bin's replicas; after the last bin, the last one's."""
        del observed
        if not len(self._launched):
            return 0
        return int(self._launched[min(max(self._bin(now), 0), len(self._launched) - 1)])

    def next_step(self, now: float) -> float:
        """When the schedule changes."""
        place = int(np.searchsorted(self._changes, self._bin(now), side="right"))
        if place == len(self._changes):
            return inf
        return self._begins_s + float(self._changes[place]) * self.interval_s

    def _bin(self, now: float) -> int:
        return int((now - self._begins_s) / self.interval_s + 0.5)
