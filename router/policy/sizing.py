"""How many warm replicas a model should have: rent or buy, one problem per replica.

Offered work is cut into levels of one replica each; level k carries
`clip(load - (k-1) mu, 0, mu)`. A level's counter grows by what its work would cost on serverless
minus what the replica costs, and is clipped to [0, beta], where beta is the replica's start-up
bill plus what remains of its minimum billing time. At beta the replica is started, at 0 stopped:
the deterministic rule for lower convex prices with switching cost (Lin et al., "Dynamic
right-sizing for power-proportional data centers", 2013), 3-competitive per level without start-up
delay.

Demand may keep fooling the counter: bursts that end as the replica is ready. So a level gives up
following it once never having had a replica would have been cheaper by a beta (the counters of Blum
and Burch, "On-line learning and the metrical task system problem", 1997). It follows again once
that has turned round by as much, or once it has cost a tenth and a beta more than the counter would
have: history may be wrong, or demand an adversary. (Keeping replicas that pauses made look cheaper
was tried too, and cost more than it saved.)

No bound is claimed where replicas take a time D to start. Say a replica costs w a second and its
work rho w on serverless. If demand ends as the replica is ready, whoever started it as demand began
has paid (rho + 1) w D, but 2 w D would have done with a start D earlier; whoever never starts one
pays rho times the best if demand stays. Keeping an idle replica until it has cost as much as
bridging its restart would was tried against such demand: it cost 3 to 9 % more on public traces,
and more against the adversary as well. Pure: state goes in, state comes out.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf
from typing import NamedTuple

from router.policy.spare import spare_slots

_CHANGE_BETAS = 1.05
"""What must have been saved to change: one start in vain may cost the counter a beta."""
_MEMORY_BETAS = 4.0
"""How far the counter can be ahead or behind: what came before some changes is forgotten."""
_ALLOWANCE_RATIO = 0.1
"""What not following may cost more than the counter in the long run, as a share of its cost."""
_SAVINGS_BETAS = 2.0
"""What it has saved is kept up to this many betas, so that old savings pay for few mistakes."""


class SizingReason(StrEnum):
    """What sets the wanted number of replicas."""

    IDLE = "idle"
    RENT_OR_BUY = "rent_or_buy"
    MIN_REPLICAS = "min_replicas"
    MAX_REPLICAS = "max_replicas"
    LATENCY_DUTY = "latency_duty"
    CAPTIVE_WORK = "captive_work"
    BATCH_DEADLINE = "batch_deadline"


@dataclass(frozen=True, slots=True)
class SizingParams:
    """A pool's bounds and prices. `packing` is the share of a replica that is filled (mu).

    `captive_packing` is that share for work that may not go to serverless when a replica is full.
    """

    min_replicas: int
    max_replicas: int
    packing: float
    replica_usd_per_s: float
    startup_s: float
    min_billing_s: float
    captive_packing: float = 0.7

    def beta_usd(self, age_s: float) -> float:
        """Cost of switching a replica on; once it runs, what giving it up would still waste."""
        remaining_s = max(0.0, self.min_billing_s - age_s)
        return self.replica_usd_per_s * (self.startup_s + remaining_s)


class Filling(NamedTuple):
    """Work that may wait, and fills what replicas have idle.

    A second of a replica that does nothing else saves `usd_per_s` by it. It can fill `width`
    replicas at most, each of which has `slots`.
    """

    usd_per_s: float = 0.0
    width: float = 0.0
    slots: int = 1

    def idle_usd(self, k: int, load: float) -> float:
        """USD per second that it saves on level k beside that load."""
        if not self.usd_per_s:
            return 0.0
        return self.usd_per_s * (self._used(k + 1, load) - self._used(k, load))

    def _used(self, replicas: int, load: float) -> float:
        in_use = load * self.slots
        return min(self.width, spare_slots(replicas * self.slots, in_use, 0, in_use) / self.slots)


class Demand(NamedTuple):
    """Offered work of one model, averaged over the controller's window.

    `load` is in replicas (arrivals/s x service time / concurrency); `captive_load` the part of it
    that serverless cannot carry; `serverless_usd_per_s` what the rest would cost there; `held`
    requests waiting for a first replica; `latency_duty` that serverless alone would break the
    objective. `filling` is the work of jobs that wait, which cannot do so any more without `forced`
    replicas in all.
    """

    load: float
    serverless_usd_per_s: float
    captive_load: float = 0.0
    held: int = 0
    latency_duty: bool = False
    filling: Filling = Filling()
    forced: int = 0


class Level(NamedTuple):
    """One replica's state. Times are None while it is off.

    `counter_usd` and `bought_at` are the counter's own; `running_since` is the replica's, which
    follows it unless `gave_up`. `never_usd` says what no replica would have cost more than the
    counter, `excess_usd` what the level has cost more than the counter and its allowance.
    """

    counter_usd: float = 0.0
    bought_at: float | None = None
    running_since: float | None = None
    gave_up: bool = False
    never_usd: float = 0.0
    excess_usd: float = 0.0


class Sizing(NamedTuple):
    """The wanted number of replicas, why, and the state for the next step."""

    wanted: int
    reason: SizingReason
    levels: tuple[Level, ...]


def size(
    params: SizingParams, levels: tuple[Level, ...], demand: Demand, dt: float, now: float
) -> Sizing:
    """Advance every level by `dt` seconds of this demand."""
    count = min(max(len(levels), _reached(params, demand)), params.max_replicas)
    stepped = tuple(
        _step(params, levels[k] if k < len(levels) else Level(), _rent(params, demand, k), dt, now)
        for k in range(count)
    )
    bought = sum(level.running_since is not None for level in stepped)
    floor, floor_reason = _floor(params, demand)
    wanted = max(bought, floor)
    if wanted == 0:
        reason = SizingReason.IDLE
    elif floor > bought:
        reason = floor_reason
    elif wanted == params.max_replicas > params.min_replicas and _short(params, demand):
        reason = SizingReason.MAX_REPLICAS
    elif demand.captive_load > 0 or demand.held:
        reason = SizingReason.CAPTIVE_WORK
    else:
        reason = SizingReason.RENT_OR_BUY
    return Sizing(wanted, reason, stepped)


def _reached(params: SizingParams, demand: Demand) -> int:
    """Levels that this demand touches."""
    return max(ceil(demand.load / params.packing), _captive_levels(params, demand))


def _captive_levels(params: SizingParams, demand: Demand) -> int:
    """Levels that captive work needs, with room for its bursts."""
    packing = min(params.packing, params.captive_packing)
    return max(ceil(demand.captive_load / packing), int(demand.held > 0))


def _rent(params: SizingParams, demand: Demand, k: int) -> float:
    """USD per second that level k's work costs elsewhere; infinite where it cannot go."""
    if k < _captive_levels(params, demand):
        return inf
    idle_usd = demand.filling.idle_usd(k, demand.load)
    mu = params.packing
    share = min(max(demand.load - k * mu, 0.0), mu)
    if share <= 0:
        return idle_usd
    # Captive work fills the lowest levels and has no part in the price.
    return idle_usd + demand.serverless_usd_per_s * share / (demand.load - demand.captive_load)


def _step(params: SizingParams, level: Level, rent: float, dt: float, now: float) -> Level:
    if (
        rent == 0
        and level.counter_usd == 0
        and level.bought_at is None
        and level.running_since is None
    ):
        return level
    counter_usd, bought_at = _count(params, level, rent, dt, now)
    never_usd, excess_usd, gave_up = level.never_usd, level.excess_usd, False
    # Infinite rent leaves no choice, and teaches nothing for times with one.
    if rent < inf:
        never_usd, excess_usd = _learn(params, level, rent, dt, now)
        gave_up = _gives_up(params, level.gave_up, never_usd, excess_usd)
    wanted = bought_at is not None and not gave_up
    running_since = level.running_since
    if wanted and running_since is None:
        running_since = now
    elif not wanted and running_since is not None:
        unused_s = max(running_since + params.min_billing_s - now, 0.0)
        excess_usd += params.replica_usd_per_s * unused_s
        running_since = None
    return Level(counter_usd, bought_at, running_since, gave_up, never_usd, excess_usd)


def _count(
    params: SizingParams, level: Level, rent: float, dt: float, now: float
) -> tuple[float, float | None]:
    """Move the counter, and buy or sell where it says so."""
    bought_at = level.bought_at
    beta = params.beta_usd(now - bought_at if bought_at is not None else 0.0)
    counter = beta
    if rent < inf:
        counter = level.counter_usd + (rent - params.replica_usd_per_s) * dt
        counter = min(max(counter, 0.0), beta)
    # The comparison with the rent matters where switching is free (beta = 0).
    pays = rent > params.replica_usd_per_s
    if bought_at is None:
        return counter, now if counter >= beta and pays else None
    return counter, bought_at if counter > 0 or pays else None


def _learn(
    params: SizingParams, level: Level, rent: float, dt: float, now: float
) -> tuple[float, float]:
    """What no replica, and the level itself, have cost more than the counter by now."""
    beta = params.beta_usd(0.0)
    # The counter never sells within the minimum: its beta holds that until it is over.
    counter = _step_usd(params, level.bought_at, rent, dt, now)
    actual = _step_usd(params, level.running_since, rent, dt, now)
    never = level.never_usd + rent * dt - counter
    excess = level.excess_usd + actual - (1 + _ALLOWANCE_RATIO) * counter
    memory = _MEMORY_BETAS * beta
    return min(max(never, -memory), memory), max(excess, -_SAVINGS_BETAS * beta)


def _step_usd(
    params: SizingParams, since: float | None, rent: float, dt: float, now: float
) -> float:
    """Cost of the last `dt` with a replica since then; while it starts, serverless bridges."""
    if since is None:
        return rent * dt
    bridged_s = min(max(since + params.startup_s - (now - dt), 0.0), dt)
    return params.replica_usd_per_s * dt + rent * bridged_s


def _gives_up(params: SizingParams, gave_up: bool, never_usd: float, excess_usd: float) -> bool:
    """Whether the counter is not followed from now on."""
    beta = params.beta_usd(0.0)
    if gave_up:
        return excess_usd <= beta and never_usd <= _CHANGE_BETAS * beta
    return excess_usd <= 0 and never_usd < -_CHANGE_BETAS * beta


def lasting(params: SizingParams, sizing: Sizing, demand: Demand) -> int:
    """Of the wanted replicas, those that this demand keeps: the others are about to go."""
    return min(sizing.wanted, max(_reached(params, demand), _floor(params, demand)[0]))


def _floor(params: SizingParams, demand: Demand) -> tuple[int, SizingReason]:
    """Replicas that are kept whatever they cost. (Captive work shows up in the levels.)"""
    if demand.forced > params.min_replicas:
        return min(demand.forced, params.max_replicas), SizingReason.BATCH_DEADLINE
    if params.min_replicas:
        return params.min_replicas, SizingReason.MIN_REPLICAS
    if demand.latency_duty:
        return min(1, params.max_replicas), SizingReason.LATENCY_DUTY
    return 0, SizingReason.IDLE


def _short(params: SizingParams, demand: Demand) -> bool:
    return _reached(params, demand) > params.max_replicas
