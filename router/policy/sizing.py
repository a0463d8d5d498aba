"""How many warm replicas a model should have: rent or buy, one problem per replica.

Offered work is cut into levels of one replica each; level k carries
`clip(load - (k-1) mu, 0, mu)`. A level's counter grows by what its work would cost on serverless
minus what the replica costs, and is clipped to [0, beta], where beta is the replica's start-up
bill plus what remains of its minimum billing time. At beta the replica is started, at 0 stopped:
the deterministic rule for lower convex prices with switching cost (Lin et al., "Dynamic
right-sizing for power-proportional data centers", 2013), 3-competitive per level without start-up
delay. Pure: state goes in, state comes out.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import NamedTuple


class SizingReason(StrEnum):
    """What sets the wanted number of replicas."""

    IDLE = "idle"
    RENT_OR_BUY = "rent_or_buy"
    MIN_REPLICAS = "min_replicas"
    MAX_REPLICAS = "max_replicas"
    LATENCY_DUTY = "latency_duty"
    CAPTIVE_WORK = "captive_work"


@dataclass(frozen=True, slots=True)
class SizingParams:
    """A pool's bounds and prices. `packing` is the share of a replica that is filled (mu)."""

    min_replicas: int
    max_replicas: int
    packing: float
    replica_usd_per_s: float
    startup_s: float
    min_billing_s: float

    def beta_usd(self, age_s: float) -> float:
        """Cost of switching a replica on; once it runs, what giving it up would still waste."""
        remaining_s = max(0.0, self.min_billing_s - age_s)
        return self.replica_usd_per_s * (self.startup_s + remaining_s)


class Demand(NamedTuple):
    """Offered work of one model, averaged over the controller's window.

    `load` is in replicas (arrivals/s x service time / concurrency); `serverless_usd_per_s` what
    all of it would cost on serverless; `captive_load` the part that serverless cannot carry;
    `held` requests waiting for a first replica; `latency_duty` that serverless alone would break
    the objective.
    """

    load: float
    serverless_usd_per_s: float
    captive_load: float = 0.0
    held: int = 0
    latency_duty: bool = False


class Level(NamedTuple):
    """One replica's counter in USD, and since when it is on (None: off)."""

    counter_usd: float = 0.0
    on_since: float | None = None


class Sizing(NamedTuple):
    """The wanted number of replicas, why, and the state for the next step."""

    wanted: int
    reason: SizingReason
    levels: tuple[Level, ...]


def size(
    params: SizingParams, levels: tuple[Level, ...], demand: Demand, dt: float, now: float
) -> Sizing:
    """Advance every level by `dt` seconds of this demand."""
    stepped = tuple(
        _step(params, levels[k] if k < len(levels) else Level(), _rent(params, demand, k), dt, now)
        for k in range(params.max_replicas)
    )
    bought = sum(level.on_since is not None for level in stepped)
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


def _rent(params: SizingParams, demand: Demand, k: int) -> float:
    """USD per second that level k's work costs on serverless; infinite where it cannot go."""
    mu = params.packing
    captive_levels = demand.captive_load / mu
    if k < captive_levels or (k == 0 and demand.held):
        return inf
    share = min(max(demand.load - k * mu, 0.0), mu)
    return demand.serverless_usd_per_s * share / demand.load if demand.load > 0 else 0.0


def _step(params: SizingParams, level: Level, rent: float, dt: float, now: float) -> Level:
    age_s = now - level.on_since if level.on_since is not None else 0.0
    beta = params.beta_usd(age_s)
    if rent == inf:
        counter = beta  # also in a step without duration, where inf * 0 would be no number
    else:
        counter = level.counter_usd + (rent - params.replica_usd_per_s) * dt
        counter = min(max(counter, 0.0), beta)
    if level.on_since is None:
        starts = counter >= beta and rent > params.replica_usd_per_s
        return Level(counter, now if starts else None)
    # The comparison with the rent matters where switching is free (beta = 0).
    stays = counter > 0 or rent > params.replica_usd_per_s
    return Level(counter, level.on_since if stays else None)


def _floor(params: SizingParams, demand: Demand) -> tuple[int, SizingReason]:
    """Replicas that are kept whatever they cost. (Captive work shows up in the levels.)"""
    if params.min_replicas:
        return params.min_replicas, SizingReason.MIN_REPLICAS
    if demand.latency_duty:
        return min(1, params.max_replicas), SizingReason.LATENCY_DUTY
    return 0, SizingReason.IDLE


def _short(params: SizingParams, demand: Demand) -> bool:
    return demand.load > params.max_replicas * params.packing
