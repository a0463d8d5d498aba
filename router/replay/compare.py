"""Two configurations on the same trace: which requests would go elsewhere, dollars, milliseconds.

Both meet the same requests with the same service times. Says what changes, not which is better.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from router.replay.arrivals import Dropped, TraceError
from router.replay.machine import ON_SERVERLESS, REFUSED
from router.replay.reading import ModelMap, Target, parts
from router.replay.replay import ReplayOptions
from router.replay.sides import Side
from router.replay.simulator import Results
from router.replay.tally import Sums
from router.replay.traces import OnProgress, Trace
from router.replay.workload import ModelSetup
from router.replay.world import ModelWorld, World, model_world
from router.runtime import Runtime


@dataclass(slots=True)
class Change:
    """What changes for one model: sums under both, and who moved where."""

    old: Sums = field(default_factory=Sums)
    new: Sums = field(default_factory=Sums)
    to_pool: int = 0
    to_serverless: int = 0
    newly_refused: int = 0
    newly_served: int = 0
    slower: int = 0
    faster: int = 0

    @property
    def moved(self) -> int:
        """Requests that would have another backend, or another answer."""
        return self.to_pool + self.to_serverless + self.newly_refused + self.newly_served

    def add(self, other: "Change") -> None:
        """Add another model's changes."""
        self.old.add(other.old)
        self.new.add(other.new)
        for name in (
            "to_pool", "to_serverless", "newly_refused", "newly_served", "slower", "faster"
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Compared:
    """The changes by model, and what was left out."""

    changes: Mapping[str, Change]
    dropped: Dropped
    horizon_s: float


def compare(
    old: Runtime,
    new: Runtime,
    world: World,
    trace: Trace,
    options: ReplayOptions,
    on_progress: OnProgress = lambda _bytes: None,
) -> Compared:
    """Run the trace under both. Raises TraceError if no model of it is in both."""
    configured = frozenset(old.models) & frozenset(new.models)
    models = ModelMap(configured, options.model_map, options.each_like)
    dropped = Dropped()
    sides: dict[str, tuple[Side, Side]] = {}
    changes: dict[str, Change] = {}
    last_at = 0.0
    for part in parts(trace, models, dropped, on_progress):
        name = part.target.name
        if name not in sides:
            sides[name] = _sides(part.target, old, new, world, options.seed)
            changes[name] = Change()
        last_at = max(last_at, float(part.arrivals.at[-1]))
        first, second = (side.run(part) for side in sides[name])
        _count(changes[name], first, second)
    if not sides:
        told = "; ".join(dropped.told()) or "it is empty"
        raise TraceError(f"{trace.path}: no request of a model that both have ({told})")
    horizon_s = (int(last_at / options.interval_s) + 1) * options.interval_s
    for name, (first_side, second_side) in sides.items():
        changes[name].old.add(first_side.close(horizon_s))
        changes[name].new.add(second_side.close(horizon_s))
    return Compared(changes, dropped, horizon_s)


def _sides(
    target: Target, old: Runtime, new: Runtime, world: World, seed: int
) -> tuple[Side, Side]:
    before = ModelSetup(
        target.name,
        old.models[target.like],
        model_world(world, old.models[target.like], target.name),
    )
    truth = model_world(world, new.models[target.like], target.name)
    after = ModelSetup(target.name, new.models[target.like], _as_long(truth, before.world))
    return (
        Side(before, old.settings.controller, seed),
        Side(after, new.settings.controller, seed),
    )


def _as_long(world: ModelWorld, like: ModelWorld) -> ModelWorld:
    """The world with the durations of another: a configuration only tells what it expects."""
    function = world.function
    if function is not None and like.function is not None:
        function = replace(
            function, service_s=like.function.service_s, cold_start_s=like.function.cold_start_s
        )
    return replace(
        world,
        service_s=like.service_s,
        payload_bytes=like.payload_bytes,
        startup_s=like.startup_s,
        function=function,
    )


def _count(change: Change, old: Results, new: Results) -> None:
    """Count the rows whose place or answer differs; a held one counts where it is held."""
    refused = (old.bits & REFUSED) > 0, (new.bits & REFUSED) > 0
    called = (old.bits & ON_SERVERLESS) > 0, (new.bits & ON_SERVERLESS) > 0
    answered = ~refused[0] & ~refused[1]
    change.to_pool += int((answered & called[0] & ~called[1]).sum())
    change.to_serverless += int((answered & ~called[0] & called[1]).sum())
    change.newly_refused += int((~refused[0] & refused[1]).sum())
    change.newly_served += int((refused[0] & ~refused[1]).sum())
    later_s = new.latency_s - old.latency_s
    change.slower += int((later_s > _NOTICEABLE_S).sum())
    change.faster += int((later_s < -_NOTICEABLE_S).sum())


_NOTICEABLE_S = 0.001


def total_of(changes: Mapping[str, Change]) -> Change:
    """All models together."""
    total = Change()
    for change in changes.values():
        total.add(change)
    return total
