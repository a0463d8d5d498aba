"""Demand shapes and prices that the tests of cost share: all synthetic, all seeded."""

import numpy as np

from router.policy.sizing import SizingParams
from router.replay.demand import DemandSeries, FloatArray
from router.replay.optimum import LevelParams, Optimum, optimum

DT = 5.0
REPLICA_USD_PER_S = 1e-5


def params_of(startup_s: float, min_billing_s: float = 60.0, most: int = 40) -> SizingParams:
    return SizingParams(0, most, 1.0, REPLICA_USD_PER_S, startup_s, min_billing_s)


def series_of(load: FloatArray, rho: float) -> DemandSeries:
    """Serverless costs `rho` times a full replica."""
    return DemandSeries(DT, load, load * rho * REPLICA_USD_PER_S)


def bound_of(series: DemandSeries, params: SizingParams) -> Optimum:
    """The clairvoyant lower bound for these replicas, fully packed."""
    level = LevelParams(1.0, params.replica_usd_per_s, params.startup_s, params.min_billing_s)
    return optimum(series.load, series.serverless_usd_per_s, series.dt, level, params.max_replicas)


def _bins(hours: float) -> FloatArray:
    return np.arange(round(hours * 3600 / DT), dtype=np.float64) * DT


def daily(seed: int) -> FloatArray:
    """A short day and night around six replicas, with noise from bin to bin."""
    at = _bins(8.0)
    base = 6.0 * (1.0 - 0.8 * np.cos(2 * np.pi * at / at[-1]))
    noisy: FloatArray = np.random.default_rng(seed).gamma(20.0, base / 20.0)
    return noisy


def wandering(seed: int) -> FloatArray:
    """A load that drifts by a third within minutes."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=len(_bins(8.0)))
    log_load = np.zeros(len(noise))
    pull = DT / 1200.0
    for t in range(1, len(noise)):
        log_load[t] = log_load[t - 1] * (1 - pull) + 0.4 * np.sqrt(2 * pull) * noise[t]
    wandered: FloatArray = 4.0 * np.exp(log_load)
    return wandered


def flash_crowds(seed: int) -> FloatArray:
    """A quiet service that is ten times busier for a few minutes now and then."""
    rng = np.random.default_rng(seed)
    at = _bins(8.0)
    load = np.full(len(at), 1.2)
    for begin in rng.uniform(0, at[-1], 8):
        load[(at >= begin) & (at < begin + rng.uniform(120, 900))] = 12.0
    return load


def cron(seed: int) -> FloatArray:
    """Four replicas' work for a minute and a half, every ten minutes."""
    del seed
    at = _bins(8.0)
    return np.asarray(np.where(at % 600.0 < 90.0, 4.0, 0.0), np.float64)


def sparse(seed: int) -> FloatArray:
    """A short call a minute."""
    rng = np.random.default_rng(seed)
    return rng.poisson(DT / 60.0, len(_bins(8.0))).astype(np.float64) * 0.1 / DT
