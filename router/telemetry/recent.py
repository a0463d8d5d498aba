"""What the last minute was like for each model: why requests went where, how long they took.

Keeps what counters have grown by, a few steps long; models at rest cost nothing but a look.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from router.domain.clock import Sleep
from router.telemetry.exposition import quantile_s
from router.telemetry.families import BUCKETS_S
from router.telemetry.metrics import Metrics, Seen
from router.turns import Steps, in_turns

STEP_S = 10.0
_STEPS = 6
_AT_A_TIME = 100


class Recent:
    """The last minute of all models; `run` keeps it current."""

    def __init__(self, metrics: Metrics, sleep: Sleep = asyncio.sleep) -> None:
        self._metrics = metrics
        self._sleep = sleep
        self._before: dict[str, Counter[Seen]] = {}
        self._grown: deque[dict[str, Counter[Seen]]] = deque(maxlen=_STEPS)

    async def run(self) -> None:
        """Look every STEP_S until cancelled."""
        while True:
            await in_turns(self.look())
            await self._sleep(STEP_S)

    def look(self) -> Steps[None]:
        """Note what has been counted since the last look."""
        now = yield from self._metrics.seen()
        grown: dict[str, Counter[Seen]] = {}
        for number, (model, counts) in enumerate(now.items()):
            if more := counts - self._before.get(model, Counter()):
                grown[model] = more
            if number % _AT_A_TIME == 0:
                yield
        self._grown.append(grown)
        self._before = now

    def counts(self, model: str) -> Counter[Seen]:
        """What has been counted of a model within the last minute."""
        counts: Counter[Seen] = Counter()
        for step in self._grown:
            counts.update(step.get(model, {}))
        return counts

    def of(self, model: str, others: Iterable[Counter[Seen]] = ()) -> dict[str, Any]:
        """A model's last minute, as the status document has it. Times are None without requests.

        What other gateways have counted is added.
        """
        counts = self.counts(model)
        for other in others:
            counts.update(other)
        parts: dict[str, dict[Any, int]] = {"reasons": {}, "objective": {}, "took": {}}
        for (part, what), count in counts.items():
            parts[part][what] = count
        took = parts.pop("took")
        buckets = [took.get(place, 0) for place in range(len(BUCKETS_S) + 1)]
        requests = sum(buckets)
        return {
            "requests": requests,
            "p50_ms": round(quantile_s(buckets, 0.5) * 1e3, 3) if requests else None,
            "p99_ms": round(quantile_s(buckets, 0.99) * 1e3, 3) if requests else None,
            **parts,
        }
