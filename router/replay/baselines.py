"""What a user would run otherwise: autoscalers and fixed pools, as the replay compares with them.

Each looks at facts of the last interval and says how many replicas it wants. State machines over
the ticks they are given: they read no clock, start nothing and price nothing.
"""

from collections import deque
from math import ceil, floor
from typing import NamedTuple, Protocol

import numpy as np

from router.policy.alternatives import replicas_for_peak
from router.policy.sizing import SizingParams
from router.replay.demand import DemandSeries

_ROUNDING = 1e-9
"""Keeps a load of exactly n replicas at n."""


class Tick(NamedTuple):
    """Facts of the last `dt` seconds.

    `work_s` is the arrivals' work in replica-seconds, `busy_ratio` the busy share of the ready
    replicas, `queued` the requests that wait, `wanted` the last answer.
    """

    now: float
    dt: float
    arrivals: int
    work_s: float
    busy_ratio: float
    ready: int
    wanted: int
    queued: int


class Baseline(Protocol):
    """Sizes a pool. With `overflow`, serverless takes what a full pool cannot in time."""

    name: str
    overflow: bool
    interval_s: float

    def wanted(self, tick: Tick) -> int:
        """Replicas wanted from now on; called every `interval_s`."""
        ...


class Fixed:
    """A pool of constant size: none at all, the training part's peak, or its best split."""

    interval_s = 60.0

    def __init__(self, name: str, replicas: int, *, overflow: bool) -> None:
        self.name = name
        self.overflow = overflow
        self._replicas = replicas

    def wanted(self, tick: Tick) -> int:
        """Always the same."""
        return self._replicas


class Hpa:
    """The Kubernetes HorizontalPodAutoscaler on utilisation.

    ceil(ready x busy / target) outside a tolerance of 10 %; up to twice or four more per 15 s;
    down to the highest recommendation of the last 300 s. Never below one replica.
    """

    interval_s = 15.0

    def __init__(
        self, name: str, max_replicas: int, *, overflow: bool, target_ratio: float = 0.7
    ) -> None:
        self.name = name
        self.overflow = overflow
        self._max = max_replicas
        self._target_ratio = target_ratio
        self._recommended: deque[tuple[float, int]] = deque()

    def wanted(self, tick: Tick) -> int:
        """The stabilised recommendation."""
        recommended = self._recommendation(tick)
        self._recommended.append((tick.now, recommended))
        while self._recommended[0][0] <= tick.now - 300.0:
            self._recommended.popleft()
        if recommended < tick.wanted:
            recommended = min(tick.wanted, max(count for _, count in self._recommended))
        most = max(2 * tick.wanted, tick.wanted + 4)
        return min(max(recommended, 1), most, max(self._max, 1))

    def _recommendation(self, tick: Tick) -> int:
        if not tick.ready:
            return max(tick.wanted, 1)
        ratio = tick.busy_ratio / self._target_ratio
        if abs(ratio - 1) <= 0.1:
            return tick.wanted
        return ceil(tick.ready * ratio - _ROUNDING)


class Kpa:
    """The Knative autoscaler on concurrency, scaling to zero.

    The average over 60 s; over 6 s while that is twice what the ready replicas are meant for, and
    then only upwards, until the panic has been over for 60 s.
    """

    interval_s = 2.0
    _STABLE_S = 60.0
    _PANIC_S = 6.0

    def __init__(
        self, name: str, max_replicas: int, *, overflow: bool, target_ratio: float = 0.7
    ) -> None:
        self.name = name
        self.overflow = overflow
        self._max = max_replicas
        self._target_ratio = target_ratio
        self._loads = _Loads(self._STABLE_S)
        self._panicked_at: float | None = None
        self._panic_most = 0

    def wanted(self, tick: Tick) -> int:
        """Replicas for the stable load, or for the burst."""
        self._loads.add(tick)
        stable = self._for(self._loads.mean(self._STABLE_S, tick.now))
        burst = self._for(self._loads.mean(self._PANIC_S, tick.now))
        if burst >= 2 * max(tick.ready, 1):
            self._panicked_at = tick.now
        elif self._panicked_at is not None and tick.now - self._panicked_at > self._STABLE_S:
            self._panicked_at, self._panic_most = None, 0
        if self._panicked_at is not None:
            self._panic_most = max(self._panic_most, burst, tick.wanted)
            return min(self._panic_most, self._max)
        # At most half the replicas leave at once, as knative's max-scale-down-rate of 2 says.
        return min(max(stable, tick.wanted // 2), self._max)

    def _for(self, load: float) -> int:
        return ceil(load / self._target_ratio - _ROUNDING)


class Mark:
    """MArk's rule: 1.2 times the highest load of the last ten minutes, with functions beside it.

    The last replica only where its share of the load costs more on serverless.
    """

    name = "mark"
    overflow = True
    interval_s = 60.0
    _HISTORY_S = 600.0

    def __init__(self, max_replicas: int, break_even_ratio: float) -> None:
        self._max = max_replicas
        self._break_even_ratio = break_even_ratio
        self._loads = _Loads(self._HISTORY_S)

    def wanted(self, tick: Tick) -> int:
        """Replicas for the recent peak."""
        self._loads.add(tick)
        return min(_worth(1.2 * self._loads.highest(), self._break_even_ratio), self._max)


class Libra:
    """LIBRA's cost indifference: a replica where the current rate fills it beyond break-even."""

    name = "libra"
    overflow = True
    interval_s = 60.0

    def __init__(self, max_replicas: int, break_even_ratio: float) -> None:
        self._max = max_replicas
        self._break_even_ratio = break_even_ratio

    def wanted(self, tick: Tick) -> int:
        """Replicas for the current rate, the residue left to serverless."""
        load = tick.work_s / tick.dt if tick.dt > 0 else 0.0
        return min(_worth(load, self._break_even_ratio), self._max)


class _Loads:
    """Loads of the last intervals, in replicas."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._kept: deque[Tick] = deque()

    def add(self, tick: Tick) -> None:
        self._kept.append(tick)
        while self._kept[0].now <= tick.now - self._keep_s:
            self._kept.popleft()

    def mean(self, last_s: float, now: float) -> float:
        recent = [tick for tick in self._kept if tick.now > now - last_s]
        seconds = sum(tick.dt for tick in recent)
        return sum(tick.work_s for tick in recent) / seconds if seconds > 0 else 0.0

    def highest(self) -> float:
        return max((tick.work_s / tick.dt for tick in self._kept if tick.dt > 0), default=0.0)


def _worth(load: float, break_even_ratio: float) -> int:
    """Full replicas, and one more if the rest keeps it busy beyond break-even."""
    full = floor(load + _ROUNDING)
    return full + (load - full >= break_even_ratio - _ROUNDING)


def baselines(train: DemandSeries, params: SizingParams) -> tuple[Baseline, ...]:
    """All baselines, their parameters chosen on the training part alone."""
    most = params.max_replicas
    usd_per_work = train.usd_per_work
    break_even = params.replica_usd_per_s / usd_per_work if usd_per_work > 0 else float("inf")
    peak = float(train.load.max(initial=0.0))
    split = best_static_split(train, params)
    return (
        Fixed("always_serverless", 0, overflow=True),
        Fixed("peak_warm", replicas_for_peak(peak, most), overflow=False),
        Fixed("static_split", split, overflow=True),
        Hpa("hpa", most, overflow=False),
        Hpa("hpa_overflow", most, overflow=True),
        Kpa("kpa", most, overflow=False),
        Mark(most, break_even),
        Libra(most, break_even),
    )


def best_static_split(train: DemandSeries, params: SizingParams) -> int:
    """The constant number of replicas that costs least beside serverless, fully packed."""
    most = min(params.max_replicas, ceil(float(train.load.max(initial=0.0))))
    return min(range(most + 1), key=lambda replicas: _static_usd_per_s(train, params, replicas))


def _static_usd_per_s(train: DemandSeries, params: SizingParams, replicas: int) -> float:
    if not len(train):
        return params.replica_usd_per_s * replicas
    left = np.maximum(train.load - replicas, 0.0)
    if train.captive_load is not None and (train.captive_load > replicas).any():
        # What is captive waits for a replica; without any it would never be served.
        left = np.minimum(left, train.load - train.captive_load)
        if not replicas:
            return float("inf")
    share = np.divide(left, train.load, out=np.zeros_like(left), where=train.load > 0)
    serverless = float((train.serverless_usd_per_s * share).mean())
    return params.replica_usd_per_s * replicas + serverless
