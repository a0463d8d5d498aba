"""Counts the arrivals of each model in process memory; written on the request path.

Nothing here waits, locks or allocates per request. It never decides anything: readers take
differences of the totals.
"""

from collections.abc import Iterable

from router.signals.snapshot import ModelTotals


class ModelSignals:
    """The running totals of one model; the fields are those of `ModelTotals`.

    When they grow, the model's name goes into `changed`.
    """

    __slots__ = (
        "_changed", "_name", "arrivals", "captive", "captive_work_s", "serverless_usd", "work_s",
    )  # fmt: skip

    def __init__(self, name: str = "", changed: set[str] | None = None) -> None:
        self._name = name
        self._changed: set[str] = set() if changed is None else changed
        self.arrivals = 0
        self.work_s = 0.0
        self.serverless_usd = 0.0
        self.captive = 0
        self.captive_work_s = 0.0

    def arrived(
        self, work_s: float, serverless_usd: float, is_captive: bool, requests: int = 1
    ) -> None:
        """Count requests: what each asks of the pool and costs on serverless, and its freedom."""
        self._changed.add(self._name)
        self.arrivals += requests
        self.work_s += requests * work_s
        self.serverless_usd += requests * serverless_usd
        if is_captive:
            self.captive += requests
            self.captive_work_s += requests * work_s

    def totals(self) -> ModelTotals:
        """The totals at this instant."""
        return ModelTotals(
            self.arrivals, self.work_s, self.serverless_usd, self.captive, self.captive_work_s
        )


class SignalBook:
    """The signals of all configured models; outlives a reload, so that totals keep growing.

    `changed` are the models of which the other gateways may have something new to hear: whoever
    changes what they are told adds to it, so that nobody has to look at all models to find out.
    """

    __slots__ = ("_models", "changed")

    def __init__(self) -> None:
        self._models: dict[str, ModelSignals] = {}
        self.changed: set[str] = set()

    def model(self, name: str) -> ModelSignals:
        """The signals of a configured model, new at its first mention.

        Callers pass names from the configuration only (never from a request) and keep the result,
        so the book is as large as the configuration.
        """
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = ModelSignals(name, self.changed)
            self.changed.add(name)
        return found

    def retain(self, names: Iterable[str]) -> None:
        """Forget every model that is not in `names`; call it once a reload has taken effect."""
        wanted = set(names)
        self.changed.update(self._models.keys() - wanted)
        self._models = {name: found for name, found in self._models.items() if name in wanted}

    def totals(self) -> dict[str, ModelTotals]:
        """The totals of every model at this instant."""
        return {name: signals.totals() for name, signals in self._models.items()}
