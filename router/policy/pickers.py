"""Which endpoint of a pool gets a request. The caller reserves in the same step."""

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar
from zlib import crc32


class Candidate(Protocol):
    """An endpoint as a picker sees it."""

    @property
    def id(self) -> str:
        """Stable name of the endpoint."""
        ...

    @property
    def load(self) -> float:
        """Outstanding requests over capacity; below 1 there is a free slot."""
        ...


class Located(Candidate, Protocol):
    """An endpoint that is somewhere."""

    @property
    def is_near(self) -> bool:
        """Whether it is better than others for being where it is."""
        ...


E = TypeVar("E", bound=Candidate)
L = TypeVar("L", bound=Located)

_SCAN_LIMIT = 8
"""Up to this many endpoints the least loaded is found by looking at all of them."""


def least_loaded(endpoints: Sequence[E], rng: Random) -> E | None:
    """The endpoint with the lowest load that has a free slot.

    Larger pools are sampled (two random choices, Mitzenmacher 2001), then scanned only if both
    samples are full.
    """
    if len(endpoints) == 1:
        return endpoints[0] if endpoints[0].load < 1 else None
    if len(endpoints) > _SCAN_LIMIT:
        first, second = rng.choice(endpoints), rng.choice(endpoints)
        sampled = min(first, second, key=_load)
        if sampled.load < 1:
            return sampled
    best = min(endpoints, key=_load, default=None)
    return best if best is not None and best.load < 1 else None


def nearest_first(endpoints: Sequence[L], rng: Random) -> L | None:
    """The least loaded of those nearby, or of all once those have no free slot."""
    near = [endpoint for endpoint in endpoints if endpoint.is_near]
    return least_loaded(near, rng) or least_loaded(endpoints, rng)


def sticky(endpoints: Sequence[E], key: str, rng: Random) -> E | None:
    """The endpoint that owns the key.

    Highest-random-weight hashing: when an endpoint comes or goes only its own keys move. A full
    owner gives way to the least loaded endpoint, so affinity never overrides load.
    """
    owner = max(endpoints, key=lambda endpoint: _weight(endpoint, key), default=None)
    if owner is not None and owner.load < 1:
        return owner
    return least_loaded(endpoints, rng)


def _load(endpoint: Candidate) -> float:
    return endpoint.load


def _weight(endpoint: Candidate, key: str) -> int:
    return crc32(f"{endpoint.id}\0{key}".encode())
