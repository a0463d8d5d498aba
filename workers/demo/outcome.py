"""What the demo saw, in sentences, and whether it went well. Pure.

A gateway that refuses because there is too much does what it should on a machine that is too busy
for the demo's traffic: that is told, and is no failure. A model that never answered is one.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from workers.demo.calls import Call

_TOO_MUCH = {429, 503, 504}  # the gateway's answers where capacity or time did not suffice
_BUSY_LOAD = 1.5  # processes that want to run, for each core


class Outcome:
    """Every call, by where it was answered; `add` counts one."""

    def __init__(self) -> None:
        self._answered: Counter[str] = Counter()
        self._cold = 0
        self._refused: Counter[int] = Counter()
        self._failed: Counter[str] = Counter()
        self._models: dict[str, bool] = {}
        self._most_ready: Counter[str] = Counter()

    def add(self, call: Call) -> None:
        """Count a call."""
        self._models[call.model] = self._models.get(call.model, False) or call.status == 200
        if call.status == 200:
            self._answered[call.backend] += 1
            self._cold += call.cold
        elif call.status in _TOO_MUCH:
            self._refused[call.status] += 1
        else:
            told = call.error or "no reason"
            self._failed[f"{call.status or 'no answer'}: {told}"] += 1

    def saw(self, status: dict[str, Any] | None) -> None:
        """Take note of the replicas in a status document."""
        for model in status["models"] if status is not None else ():
            name = model["name"]
            self._most_ready[name] = max(self._most_ready[name], model["replicas_ready"])

    @property
    def is_good(self) -> bool:
        """Whether every model answered, and nothing was refused but for want of capacity."""
        return not self._failed and bool(self._models) and all(self._models.values())

    def sentences(self, load: float, cores: int) -> Iterator[str]:
        """What was seen; `load` is the mean number of processes that wanted to run."""
        answered, refused = sum(self._answered.values()), sum(self._refused.values())
        places = ", ".join(f"{n} by {place}" for place, n in sorted(self._answered.items()))
        calls = answered + refused + sum(self._failed.values())
        yield f"{answered} of {calls} requests were answered: {places or 'none'}; {self._cold} cold"
        ready = ", ".join(f"{n} of {name}" for name, n in sorted(self._most_ready.items()) if n)
        yield f"most replicas at once: {ready or 'none'}"
        for status, n in sorted(self._refused.items()):
            yield f"{n} were refused with {status}: more than the machine could serve in time"
        for why, n in self._failed.most_common(5):
            yield f"{n} failed, {why}"
        for model, has_answered in sorted(self._models.items()):
            if not has_answered:
                yield f"model {model} never answered"
        if load > _BUSY_LOAD * cores:
            yield (
                f"the machine was busy ({load:.1f} processes for {cores} cores): latencies say more"
                " about it than about the gateway"
            )
