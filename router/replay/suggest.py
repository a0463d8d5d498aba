"""Which settings would have served a trace better: searched on its first part, checked on the rest.

Changes one setting after another (payload thresholds of rules, packing, limits of replicas), all
values of one in the same pass over the trace. What the rest does not confirm is not suggested. Says
nothing of settings that it does not search.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from router.replay.arrivals import Dropped, TraceError
from router.replay.choices import (
    LEAST_GAIN,
    Choice,
    acceptable,
    best,
    sizings,
    thresholds,
)
from router.replay.measure import Measure
from router.replay.reading import ModelMap, Part, Target, nothing_to_replay, parts
from router.replay.replay import ReplayOptions
from router.replay.sides import Side
from router.replay.tally import Sums
from router.replay.traces import OnProgress, Trace
from router.replay.workload import ModelSetup, Workload
from router.replay.world import World, model_world
from router.runtime import ModelRuntime, Runtime

OnPass = Callable[[str], OnProgress]
"""Told what the next pass over the trace is for; returns who is told the bytes read."""
_AS_NOW = Choice()
_SIZINGS = ("packing", "max_replicas", "min_replicas")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model now and as chosen, on the part that was searched and on the rest."""

    choice: Choice
    searched: tuple[Sums, Sums]
    rest: tuple[Sums, Sums]


@dataclass(frozen=True, slots=True)
class Suggested:
    """What was found by model, and what of it holds on the rest. Spans are in seconds."""

    models: Mapping[str, Outcome]
    holds: frozenset[str]
    searched_s: float
    rest_s: float
    dropped: Dropped


@dataclass(slots=True)
class _Model:
    target: Target
    runtime: ModelRuntime
    peak: float
    choice: Choice = _AS_NOW

    @property
    def allowed_ratio(self) -> float:
        """The share of requests that may miss the objective."""
        return 1 - self.runtime.policy.slo.percentile / 100


class Search:
    """One trace, one configuration, one world; `train_share` of the trace is searched."""

    def __init__(
        self, runtime: Runtime, world: World, trace: Trace, options: ReplayOptions
    ) -> None:
        self._runtime = runtime
        self._world = world
        self._trace = trace
        self._options = options
        self._map = ModelMap(frozenset(runtime.models), options.model_map, options.each_like)
        self._models: dict[str, _Model] = {}
        self._split_s = self._end_s = 0.0

    def run(self, on_pass: OnPass) -> Suggested:
        """Search and check. Raises TraceError if nothing can be replayed."""
        dropped = Dropped()
        self._measure(dropped, on_pass("measuring the demand"))
        for name, sizes in self._payload_rules().items():
            self._choose_for_all(name, sizes, on_pass(f"payloads of {name}"))
        for key in _SIZINGS:
            self._choose_for_each(key, on_pass(key))
        return self._checked(dropped, on_pass)

    # -- the search --------------------------------------------------------------------------------

    def _payload_rules(self) -> dict[str, list[int]]:
        rules = {
            rule.name: thresholds(rule)
            for model in self._models.values()
            for rule in model.runtime.policy.rules
        }
        return {name: sizes for name, sizes in rules.items() if sizes}

    def _choose_for_all(self, rule: str, sizes: Sequence[int], on_progress: OnProgress) -> None:
        """Move a rule's threshold, which is every model's, to where all together cost least."""
        tried = {
            name: [
                model.choice,
                *(_with_threshold(model.choice, rule, size) for size in sizes),
            ]
            for name, model in self._models.items()
        }
        sums = self._searched(tried, on_progress)
        totals = [_total(sums[name][number] for name in tried) for number in range(len(sizes) + 1)]
        strictest = min(model.allowed_ratio for model in self._models.values())
        found = best(totals[1:], totals[0], strictest)
        if found is not None:
            for model in self._models.values():
                model.choice = _with_threshold(model.choice, rule, sizes[found])

    def _choose_for_each(self, key: str, on_progress: OnProgress) -> None:
        """Give every model the value of one setting with which it costs least."""
        tried = {
            name: [model.choice, *sizings(model.runtime, model.choice, key, model.peak)]
            for name, model in self._models.items()
        }
        for name, (now, *others) in self._searched(tried, on_progress).items():
            model = self._models[name]
            found = best(others, now, model.allowed_ratio)
            if found is not None:
                model.choice = tried[name][1 + found]

    def _checked(self, dropped: Dropped, on_pass: OnPass) -> Suggested:
        """Now and as chosen, on both parts. Rules move for all, so they must pay for all together;
        where they do, models whose own settings do not hold keep theirs.
        """
        outcomes = self._outcomes(on_pass)
        moves_rules = any(outcome.choice.thresholds for outcome in outcomes.values())
        if moves_rules and not _pays(
            _total(outcome.rest[0] for outcome in outcomes.values()),
            _total(outcome.rest[1] for outcome in outcomes.values()),
        ):
            for model in self._models.values():
                model.choice = replace(model.choice, thresholds=())
            return self._checked(dropped, on_pass)
        failing = {name for name, outcome in outcomes.items() if not self._holds(name, outcome)}
        if moves_rules:
            own = {
                name for name in failing if replace(outcomes[name].choice, thresholds=()) != _AS_NOW
            }
            if own:
                for name in own:
                    model = self._models[name]
                    model.choice = Choice(thresholds=model.choice.thresholds)
                return self._checked(dropped, on_pass)
            failing = set()
        rest_s = self._end_s - self._split_s
        holds = frozenset(outcomes.keys() - failing)
        return Suggested(outcomes, holds, self._split_s, rest_s, dropped)

    def _outcomes(self, on_pass: OnPass) -> dict[str, Outcome]:
        pairs = {name: [_AS_NOW, model.choice] for name, model in self._models.items()}
        searched = self._searched(pairs, on_pass("the part that was searched"))
        rest = self._run(pairs, self._split_s, self._end_s, on_pass("the rest"))
        return {
            name: Outcome(choice, _pair(searched[name]), _pair(rest[name]))
            for name, (_, choice) in pairs.items()
        }

    def _holds(self, name: str, outcome: Outcome) -> bool:
        before, after = outcome.rest
        return _pays(before, after) and acceptable(after, before, self._models[name].allowed_ratio)

    # -- passes over the trace ---------------------------------------------------------------------

    def _measure(self, dropped: Dropped, on_progress: OnProgress) -> None:
        """Find the models, their peak loads, and where the trace is split."""
        measured: dict[str, tuple[Target, Measure, Workload]] = {}
        for part in self._parts(dropped, on_progress):
            name = part.target.name
            if name not in measured:
                setup = self._setup(part.target, _AS_NOW)
                measured[name] = part.target, Measure(setup), Workload(setup, self._options.seed)
            _, measure, workload = measured[name]
            measure.add(workload.block(part.arrivals, part.senders))
        if not measured:
            raise nothing_to_replay(self._trace, dropped)
        interval_s = self._options.interval_s
        last_at = max(measure.last_at for _, measure, _ in measured.values())
        intervals = int(last_at / interval_s) + 1
        self._end_s = intervals * interval_s
        self._split_s = round(intervals * self._options.train_share) * interval_s
        if not 0 < self._split_s < self._end_s:
            raise TraceError(f"{self._trace.path}: too short to be searched and checked")
        for name, (target, measure, _) in measured.items():
            peak = float(measure.series(0.0, self._split_s).load.max(initial=0.0))
            self._models[name] = _Model(target, self._runtime.models[target.like], peak)

    def _searched(
        self, choices: Mapping[str, Sequence[Choice]], on_progress: OnProgress
    ) -> dict[str, list[Sums]]:
        """What each choice of each model comes to on the first part."""
        return self._run(choices, 0.0, self._split_s, on_progress)

    def _run(
        self,
        choices: Mapping[str, Sequence[Choice]],
        start_s: float,
        end_s: float,
        on_progress: OnProgress,
    ) -> dict[str, list[Sums]]:
        controller = self._runtime.settings.controller
        sides = {
            name: [
                Side(self._setup(model.target, choice), controller, self._options.seed, start_s)
                for choice in choices[name]
            ]
            for name, model in self._models.items()
        }
        for part in self._parts(Dropped(), on_progress):
            if part.arrivals.at[0] >= end_s:
                break
            for side in sides[part.target.name]:
                side.run(part, end_s)
        return {
            name: [side.close(end_s - start_s) for side in found] for name, found in sides.items()
        }

    def _parts(self, dropped: Dropped, on_progress: OnProgress) -> Iterator[Part]:
        return parts(self._trace, self._map, dropped, on_progress)

    def _setup(self, target: Target, choice: Choice) -> ModelSetup:
        model = choice.applied(self._runtime.models[target.like])
        return ModelSetup(target.name, model, model_world(self._world, model, target.name))


def _with_threshold(choice: Choice, rule: str, min_bytes: int) -> Choice:
    others = tuple(known for known in choice.thresholds if known[0] != rule)
    return replace(choice, thresholds=(*others, (rule, min_bytes)))


def _pays(before: Sums, after: Sums) -> bool:
    return after.cost_usd <= (1 - LEAST_GAIN) * before.cost_usd


def _total(parts_: Iterable[Sums]) -> Sums:
    total = Sums()
    for sums in parts_:
        total.add(sums)
    return total


def _pair(sums: Sequence[Sums]) -> tuple[Sums, Sums]:
    now, chosen = sums
    return now, chosen
