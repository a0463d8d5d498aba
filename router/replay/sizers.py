"""Who says how many replicas there should be: the router's own policy, a baseline, a schedule.

Each is asked at its own interval. The first is what `serve` runs.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from router.domain.snapshot import ServerlessSnapshot
from router.policy.demand import PoolFacts, demand_from
from router.policy.sizing import Level, SizingParams, size
from router.policy.steering import Slo
from router.replay.baselines import Baseline, Tick
from router.signals.snapshot import ModelTotals
from router.signals.window import Window


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

    def function(self, now: float) -> ServerlessSnapshot | None:
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

    def skip(self, now: float, until: float) -> float:
        """The next time to ask, given that nothing happens before `until`."""
        ...


class RouterSizer:
    """The router's own sizing, fed as the controller feeds it."""

    def __init__(
        self, params: SizingParams, slo: Slo, concurrency: int, interval_s: float, window_s: float
    ) -> None:
        self.interval_s = interval_s
        self._params = params
        self._slo = slo
        self._concurrency = concurrency
        self._window = Window(window_s)
        self._levels: tuple[Level, ...] = ()
        self._asked_at: float | None = None
        self._is_idle = False
        self._totals = ModelTotals()

    def wanted(self, observed: Observed, now: float) -> int:
        """One step of the controller."""
        dt = now - self._asked_at if self._asked_at is not None else 0.0
        self._asked_at = now
        self._totals = observed.totals(now)
        self._window.add(now, {"": self._totals})
        rates = self._window.rates()
        pool = PoolFacts(self._concurrency, observed.queued, observed.ready)
        demand = demand_from(rates, pool, self._slo, observed.function(now))
        sizing = size(self._params, self._levels, demand, dt, now)
        # A step without demand that changed nothing repeats itself, unless fading warmth counts.
        without_demand = sizing.wanted == 0 and rates.arrivals == 0 and not demand.held
        unchanged = sizing.levels == self._levels and dt > 0
        self._is_idle = without_demand and unchanged and self._slo.cold_allowed
        self._levels = sizing.levels
        return sizing.wanted

    def skip(self, now: float, until: float) -> float:
        """The next step that can differ; the window is kept as if none had been left out."""
        steps = int((until - now) / self.interval_s) if self._is_idle else 0
        if steps <= 1 or self._asked_at is None:
            return now + self.interval_s
        last = now + steps * self.interval_s
        kept = min(steps, int(self._window.window_s / self.interval_s) + 2)
        for back in range(kept, -1, -1):
            self._window.add(last - back * self.interval_s, {"": self._totals})
        self._asked_at = last
        return last + self.interval_s


class BaselineSizer:
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

    def skip(self, now: float, until: float) -> float:
        """Baselines are asked every time."""
        del until
        return now + self.interval_s


class ScheduleSizer:
    """Launches what a schedule says, bin by bin."""

    def __init__(self, launched: npt.NDArray[np.int64], dt: float) -> None:
        self.interval_s = dt
        self._launched = launched

    def wanted(self, observed: Observed, now: float) -> int:
        """The bin's replicas; after the last bin, the last one's."""
        del observed
        bin_ = min(int(now / self.interval_s + 0.5), len(self._launched) - 1)
        return int(self._launched[bin_]) if bin_ >= 0 else 0

    def skip(self, now: float, until: float) -> float:
        """Every bin counts."""
        del until
        return now + self.interval_s
