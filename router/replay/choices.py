"""Settings that a search may change, the values it tries, and which outcome is better.

Pure: runs nothing. A choice leaves alone whatever it does not name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from router.domain.decision import Backend
from router.policy.rules import Rule
from router.policy.sizing import SizingParams
from router.replay.tally import Sums
from router.runtime import ModelRuntime

LEAST_GAIN = 0.01
"""Less than this share of a bill is no reason to change anything."""
_PACKINGS = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_WARM = (0, 1, 2, 3)
_LESS_AND_MORE = (1 / 16, 1 / 4, 1 / 2, 2.0, 4.0, 16.0, 64.0, 256.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """One model's settings; None: as they are. `thresholds`: smallest payloads of rules by name."""

    packing: float | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    thresholds: tuple[tuple[str, int], ...] = ()

    def applied(self, model: ModelRuntime) -> ModelRuntime:
        """The model with these settings."""
        named = dict(self.thresholds)
        rules = tuple(_moved(rule, named.get(rule.name)) for rule in model.policy.rules)
        params = model.sizing_params
        return replace(
            model,
            policy=replace(model.policy, rules=rules),
            sizing_params=None if params is None else self._sized(params),
        )

    def _sized(self, params: SizingParams) -> SizingParams:
        return replace(
            params,
            packing=params.packing if self.packing is None else self.packing,
            min_replicas=params.min_replicas if self.min_replicas is None else self.min_replicas,
            max_replicas=params.max_replicas if self.max_replicas is None else self.max_replicas,
        )


def _moved(rule: Rule, min_bytes: int | None) -> Rule:
    if min_bytes is None:
        return rule
    return replace(rule, match=replace(rule.match, min_bytes=min_bytes))


def thresholds(rule: Rule) -> list[int]:
    """Other smallest payloads for a rule that sends large requests to the pool."""
    match = rule.match
    if rule.route.backend is not Backend.POOL or not match.min_bytes:
        return []
    # The bound is inclusive: what is written as ">64KiB" begins one byte later.
    tried = (int((match.min_bytes - 1) * factor) + 1 for factor in _LESS_AND_MORE)
    return [size for size in tried if size <= match.max_bytes and size != match.min_bytes]


def sizings(model: ModelRuntime, choice: Choice, key: str, peak: float) -> list[Choice]:
    """The choice with other values for one setting of the pool; `peak` load in replicas."""
    now = choice.applied(model).sizing_params
    pool = model.settings.pool
    if now is None or pool is None or pool.kind == "static" or not pool.enabled:
        return []
    if key == "packing":
        return [replace(choice, packing=value) for value in _PACKINGS]
    if key == "min_replicas":
        return [replace(choice, min_replicas=n) for n in _WARM if n <= now.max_replicas]
    most = {ceil(peak / 2), ceil(peak), ceil(1.5 * peak), 2 * now.max_replicas}
    least = max(now.min_replicas, 1)
    return [replace(choice, max_replicas=n) for n in sorted(most) if n >= least]


def acceptable(sums: Sums, now: Sums, allowed_ratio: float) -> bool:
    """Whether no more objectives are missed than now, or than the percentile allows."""
    return sums.violations <= max(now.violations, allowed_ratio * now.requests)


def best(tried: Sequence[Sums], now: Sums, allowed_ratio: float) -> int | None:
    """The cheapest of those that are acceptable and worth a change, None without one."""
    worth = [
        (sums.cost_usd, number)
        for number, sums in enumerate(tried)
        if acceptable(sums, now, allowed_ratio)
        and sums.cost_usd <= (1 - LEAST_GAIN / 2) * now.cost_usd
    ]
    return min(worth)[1] if worth else None
