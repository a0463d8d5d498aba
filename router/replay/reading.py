"""A trace as the requests of configured models: which model of the trace is which of ours.

Splits blocks by model and counts what belongs to none. Draws nothing and simulates nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from router.replay.arrivals import UNNAMED, Arrivals, Dropped, Names, Sender, TraceError
from router.replay.traces import OnProgress, Trace


@dataclass(frozen=True, slots=True)
class ModelMap:
    """Which configured model a model of the trace stands for.

    `pairs` are glob patterns with targets, the first that matches decides; a name without a match
    stands for itself, and unnamed models (`*`) for the only configured one. Names that are still
    without a model are models of their own, configured as `each_like`, if that is given.
    """

    configured: frozenset[str]
    pairs: tuple[tuple[str, str], ...] = ()
    each_like: str | None = None

    def target(self, name: str) -> "Target | None":
        """The model of the replay, None if there is none."""
        for pattern, target in self.pairs:
            if fnmatchcase(name, pattern):
                return Target(target, target)
        if name == UNNAMED and len(self.configured) == 1:
            only = next(iter(self.configured))
            return Target(only, only)
        if name in self.configured:
            return Target(name, name)
        return Target(name, self.each_like) if self.each_like is not None else None


class Target(NamedTuple):
    """A model of the replay, and the configured model whose settings it has."""

    name: str
    like: str


class Part(NamedTuple):
    """Requests of one model, in order; `senders` are those that their numbers point to."""

    target: Target
    arrivals: Arrivals
    senders: Sequence[Sender]


def parts(
    trace: Trace, models: ModelMap, dropped: Dropped, on_progress: OnProgress
) -> Iterator[Part]:
    """The trace in order, a block of one model at a time; the same at every reading."""
    names = Names()
    for arrivals in trace.read(names, dropped, on_progress):
        known, senders = list(names.models), list(names.senders)
        places: dict[Target, int] = {}
        place_of = np.full(len(known), -1)
        for number in np.flatnonzero(np.bincount(arrivals.model)).tolist():
            target = models.target(known[number])
            if target is not None:
                place_of[number] = places.setdefault(target, len(places))
                continue
            count = int((arrivals.model == number).sum())
            dropped.add(f"model {known[number]} is not configured", rows=count)
        # Sorted once: looking for each model's rows would cost models times rows.
        place = place_of[arrivals.model]
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], np.arange(len(places) + 1)).tolist()
        for target, (first, end) in zip(places, pairwise(ends), strict=True):
            yield Part(target, arrivals.take(order[first:end]), senders)


def nothing_to_replay(trace: Trace, dropped: Dropped) -> TraceError:
    """The error for a trace that names no configured model, with what it names instead."""
    told = "; ".join(dropped.told()) or "it is empty"
    return TraceError(f"{trace.path}: no request of a configured model ({told})")
