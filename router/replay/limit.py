"""The request-level limit: what no policy with the same objective can pay less than.

The optimum of `optimum` takes demand for even within its bins, which it is not: at one or two
replicas, most of what separates a policy from it is that requests come in clumps. The limit looks
at every request, and lets a policy do all that helps:

* The pool is one server of speed n(t), the replicas that are ready: a request may be cut into
  parts, run on all replicas at once, be stopped and go on later.
* Partial credit: what the pool has done of a request need not be paid on serverless.
* A request can be worked on between its arrival and its objective only, and no longer.
* Replicas are sized in hindsight, start in time, and have no minimum bill.

With n replicas at all times, first come first served (which is earliest deadline first, as all have
the same objective L) does the most work that can be done: backlog V, in seconds, grows by an
arrival's work w / n up to L at most, and falls by a second each second. That is a clip of V between
two bounds, and clips after each other make one clip, so a million requests need few vector steps.
The work that n replicas do in a bin beyond what n - 1 do is what the n-th replica saves there. It
falls with n, so levels are independent, and the programme of `optimum` finds the best sizing.

Two allowances make it a bound for replicas that come and go at any time. Whoever adds a replica may
find work waiting that would be done had it been there before: no more than L of its time. Who
switches within a bin is compared with the same replicas at one random moment of each bin: rent is
the same on average, starts are no more, and each switch is worth a quarter of a bin at the most.
So a start is charged L and half a bin, both on serverless, less. Where that is more than a start
costs, nothing is proven. Conditions as for the optimum: a bin's requests cost alike per unit of
work. Captive work is left out, which makes the bill smaller.
"""

from math import ceil, sqrt

import numpy as np

from router.replay.demand import DemandSeries
from router.replay.distributions import Floats
from router.replay.optimum import Programme
from router.replay.workload import Block, ModelSetup

_FLUSH_ROWS = 1 << 12
_MAX_LEVELS = 256
_BINS_PER_START = 10
"""Shorter bins allow switches less, longer ones are fewer."""
_LEAST_BIN_S, _MOST_BIN_S = 1.0, 10.0


class Limit:
    """Works out the limit of one model, block by block; `startup_s` is how long replicas start."""

    def __init__(
        self, setup: ModelSetup, demand: DemandSeries, startup_s: float, *, is_warm: bool
    ) -> None:
        self._setup = setup
        self._latency_s = setup.runtime.policy.slo.latency_s
        self._startup_s = startup_s
        self._is_warm = is_warm
        self.bin_s = min(max(startup_s / _BINS_PER_START, _LEAST_BIN_S), _MOST_BIN_S)
        horizon_s = demand.dt * len(demand)
        self._bins = max(ceil(horizon_s / self.bin_s - 1e-9), 1)
        peak = float(demand.load.max(initial=0.0))
        # Beyond that, a replica is busy too seldom to pay, however requests fall.
        self._levels = ceil(peak + 3 * sqrt(peak)) + 1 if peak else 0
        shape = (self._bins, min(self._levels, _MAX_LEVELS))
        self._done = np.zeros(shape)
        self._usd = np.zeros(self._bins)
        self._work = np.zeros(self._bins)
        self._servers = np.arange(1, shape[1] + 1, dtype=np.float64)
        self._backlog_s = np.zeros(shape[1])
        self._now, self._edge = 0.0, 1
        self._parts: list[tuple[Floats, Floats]] = []
        self._rows = 0

    def add(self, block: Block) -> None:
        """Count requests, whose times count from the beginning of what is reported."""
        function = self._setup.world.function
        if function is None or not self._levels:
            return
        chosen = block.fits
        at, work = block.at[chosen], block.service_s[chosen] / self._setup.world.throughput
        usd = function.usd_per_request + function.compute_usd(block.function_s[chosen])
        bins = np.minimum((at / self.bin_s).astype(np.int64), self._bins - 1)
        self._usd += np.bincount(bins, usd, self._bins)
        self._work += np.bincount(bins, work, self._bins)
        own = block.deadline_s[chosen]
        if not np.isnan(own).all():
            self._latency_s = max(self._latency_s, float(np.nanmax(own)))
        self._parts.append((at, work))
        self._rows += len(at)
        if self._rows >= _FLUSH_ROWS:
            self._flush()

    def usd(self) -> float:
        """The limit, 0 where nothing is proven."""
        if not self._usd.any() or self._levels > _MAX_LEVELS:
            return 0.0
        replica_usd_per_s = self._setup.world.replica_usd_per_s
        self._flush()
        self._work_until(self._bins * self.bin_s)
        usd_per_work = np.divide(
            self._usd, self._work, out=np.zeros(self._bins), where=self._work > 0
        )
        # A bin without arrivals may still finish what came before.
        usd_per_work[self._work == 0] = usd_per_work.max()
        allowed_usd = (self._latency_s + self.bin_s / 2) * self._usd.sum() / self._work.sum()
        start_usd = replica_usd_per_s * self._startup_s - allowed_usd
        if start_usd < 0:
            return 0.0
        saved = np.diff(self._done, axis=1, prepend=0.0) * usd_per_work[:, None]
        programme = Programme(
            bins=self._bins,
            levels=saved.shape[1],
            first=int(self._startup_s / self.bin_s + 1e-9),
            hold_usd=replica_usd_per_s * self.bin_s,
            start_usd=start_usd,
            is_warm=self._is_warm,
        )
        cost_usd, _ = programme.solve(saved)
        return cost_usd + float(self._usd.sum() - saved.sum())

    def _flush(self) -> None:
        if self._parts:
            at = np.concatenate([part[0] for part in self._parts])
            work = np.concatenate([part[1] for part in self._parts])
            self._parts, self._rows = [], 0
            last = int(at[-1] / self.bin_s)
            self._take(at, work, self._edges(last))

    def _work_until(self, end_s: float) -> None:
        self._take(np.zeros(0), np.zeros(0), self._edges(round(end_s / self.bin_s)))

    def _edges(self, last: int) -> Floats:
        """The ends of bins that are still to come, up to that one."""
        edges: Floats = np.arange(self._edge, last + 1, dtype=np.float64) * self.bin_s
        return edges

    def _take(self, at: Floats, work: Floats, edges: Floats) -> None:
        """Advance all levels over these arrivals, and over edges of bins as arrivals of nothing."""
        times = np.concatenate([at, edges])
        order = np.argsort(times, kind="stable")
        times = times[order]
        jobs = np.concatenate([work, np.zeros(len(edges))])[order]
        if not len(times):
            return
        gaps = np.diff(times, prepend=self._now)
        after = backlogs(self._backlog_s, gaps, jobs / self._servers[:, None], self._latency_s)
        before = np.maximum(np.column_stack([self._backlog_s, after[:, :-1]]) - gaps, 0.0)
        taken = np.cumsum((after - before) * self._servers[:, None], axis=1)
        # What was done by a time is what was taken by then and is not waiting.
        done = taken + (self._backlog_s[:, None] - after) * self._servers[:, None]
        ends = np.flatnonzero(order >= len(at))
        at_ends = np.column_stack([np.zeros(len(self._servers)), done[:, ends], done[:, -1]])
        by_bin = np.diff(at_ends, axis=1).T
        last = min(self._edge - 1 + len(ends), self._bins - 1)
        self._done[self._edge - 1 : self._edge - 1 + len(ends)] += by_bin[:-1]
        self._done[last] += by_bin[-1]
        self._backlog_s = after[:, -1].copy()
        self._now = float(times[-1])
        self._edge += len(ends)


def backlogs(start_s: Floats, gaps_s: Floats, jobs_s: Floats, most_s: float) -> Floats:
    """Backlog after each arrival, for each row of jobs; none may exceed `most_s`.

    V <- min(max(V - gap, 0) + job, most). Rows are levels, columns arrivals. Stretches of equal
    length are composed side by side, then walked through with what they begin with.
    """
    levels, arrivals = jobs_s.shape
    width = ceil(sqrt(arrivals))
    stretches = ceil(arrivals / width)
    padding = stretches * width - arrivals
    # Shape: place within the stretch, level, stretch.
    gaps = np.pad(gaps_s, (0, padding)).reshape(stretches, width).T
    jobs = np.pad(jobs_s, ((0, 0), (0, padding))).reshape(levels, stretches, width)
    jobs = np.ascontiguousarray(jobs.transpose(2, 0, 1))
    shift = np.zeros((levels, stretches))
    low, high = np.full_like(shift, -np.inf), np.full_like(shift, np.inf)
    for place in range(width):
        job = jobs[place]
        move = job - gaps[place]
        least = np.minimum(job, most_s)
        shift += move
        np.clip(low + move, least, most_s, out=low)
        np.clip(high + move, least, most_s, out=high)
    begins = np.empty((levels, stretches))
    now = start_s
    for stretch in range(stretches):
        begins[:, stretch] = now
        now = np.clip(now + shift[:, stretch], low[:, stretch], high[:, stretch])
    found = np.empty((width, levels, stretches))
    for place in range(width):
        begins = np.minimum(np.maximum(begins - gaps[place], 0.0) + jobs[place], most_s)
        found[place] = begins
    after: Floats = found.transpose(1, 2, 0).reshape(levels, -1)[:, :arrivals]
    return after
