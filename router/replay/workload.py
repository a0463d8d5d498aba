"""One model's requests with everything the world has drawn for them, the same under every policy.

Turns arrivals into columns that a simulation reads: service times, cold starts, what the rules
wish. Nothing here depends on how a request is routed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from router.domain.decision import Backend
from router.policy.estimates import payload_bucket
from router.policy.feasibility import EVENT_OVERHEAD_BYTES
from router.policy.rules import Rule
from router.replay.arrivals import Arrivals, Sender
from router.replay.distributions import Constant, Distribution, Floats, Ints
from router.replay.world import ModelWorld
from router.runtime import ModelRuntime

Bools = npt.NDArray[np.bool_]

WISH_NONE, WISH_POOL, WISH_SERVERLESS = 0, 1, 2
"""What a rule says of a request: nothing (auto), the pool, or serverless."""

_WISHES = {None: WISH_NONE, Backend.POOL: WISH_POOL, Backend.SERVERLESS: WISH_SERVERLESS}


@dataclass(frozen=True, slots=True)
class ModelSetup:
    """A model under test: how it is configured, and what is true of it."""

    name: str
    runtime: ModelRuntime
    world: ModelWorld

    @property
    def max_payload_bytes(self) -> int:
        """Largest encoded request that its function takes; 0 without one."""
        function = self.runtime.serverless
        if function is None or self.world.function is None:
            return 0
        configured = function.params.limits.max_payload_bytes
        return min(configured, self.world.function.max_payload_bytes)


@dataclass(frozen=True, slots=True)
class Block:
    """Requests of one model in the order of time; times in seconds.

    `function_s` is the billed time of a warm call, `overhead_s` what the gateway sees on top.
    `fits` says that the function takes a request of this size. Unknown deadlines are NaN.
    """

    at: Floats
    payload_bytes: Ints
    bucket: Ints
    deadline_s: Floats
    wish: Ints
    fits: Bools
    service_s: Floats
    function_s: Floats
    overhead_s: Floats
    cold_s: Floats

    def __len__(self) -> int:
        return len(self.at)

    def between(self, start_s: float, end_s: float = np.inf) -> "Block":
        """The rows from `start_s` on and before `end_s`, with times counted from the start."""
        first, last = (int(at) for at in np.searchsorted(self.at, [start_s, end_s]))
        columns = {name: getattr(self, name)[first:last] for name in self.__slots__}
        return Block(**{**columns, "at": columns["at"] - start_s})

    def before(self, end_s: float) -> "Block":
        """The rows before `end_s`."""
        return self._rows(slice(None, int(np.searchsorted(self.at, end_s))))

    def since(self, start_s: float) -> "Block":
        """The rows from `start_s` on."""
        return self._rows(slice(int(np.searchsorted(self.at, start_s)), None))

    @staticmethod
    def merged(blocks: "Sequence[Block]") -> "Block":
        """The rows of several models, in the order of time."""
        order = np.argsort(np.concatenate([block.at for block in blocks]), kind="stable")
        return Block(
            **{
                name: np.concatenate([getattr(block, name) for block in blocks])[order]
                for name in Block.__slots__
            }
        )

    def _rows(self, chosen: slice) -> "Block":
        return Block(**{name: getattr(self, name)[chosen] for name in self.__slots__})

    def rows(self, objective_s: float) -> "zip[Row]":
        """The columns that routing reads; without a deadline the objective is what is left."""
        left_s = np.where(np.isnan(self.deadline_s), objective_s, self.deadline_s)
        columns = (
            self.at, self.bucket, self.wish, self.fits, left_s,
            self.service_s, self.function_s, self.overhead_s, self.cold_s,
        )  # fmt: skip
        return zip(*(column.tolist() for column in columns), strict=True)


Row = tuple[float, int, int, bool, float, float, float, float, float]
"""at, bucket, wish, fits, left_s, service_s, function_s, overhead_s, cold_s."""


class Workload:
    """Draws what the world decides about one model's requests, block after block."""

    def __init__(self, setup: ModelSetup, seed: int) -> None:
        self._setup = setup
        self._seed = (seed, crc32(setup.name.encode()))
        world = setup.world
        function = world.function
        none = Constant(0.0)
        self._payload = self._drawn(1, world.payload_bytes)
        self._service = self._drawn(2, world.service_s)
        # The same request is long or short on both backends, so these share a seed.
        own_service = function.service_s if function is not None else None
        self._function = self._drawn(2, own_service or world.service_s)
        self._overhead = self._drawn(3, function.overhead_s if function is not None else none)
        self._cold = self._drawn(4, function.cold_start_s if function is not None else none)
        self._weights = np.random.default_rng([*self._seed, 5])

    def _drawn(self, purpose: int, distribution: Distribution) -> "_Drawn":
        return _Drawn(distribution, [*self._seed, purpose])

    def block(self, arrivals: Arrivals, senders: Sequence[Sender]) -> Block:
        """The block for these arrivals, which must all be this model's."""
        sizes = self._sizes(arrivals.payload_bytes)
        draw = self._weights.random(len(arrivals))
        draw = np.where(np.isnan(arrivals.draw), draw, arrivals.draw)
        return Block(
            at=arrivals.at,
            payload_bytes=sizes,
            bucket=_buckets(sizes),
            deadline_s=arrivals.deadline_s,
            wish=wishes(self._setup.runtime.policy.rules, sizes, draw, (arrivals.sender, senders)),
            fits=sizes + EVENT_OVERHEAD_BYTES <= self._setup.max_payload_bytes,
            service_s=self._service.next(sizes),
            function_s=self._function.next(sizes),
            overhead_s=self._overhead.next(sizes),
            cold_s=self._cold.next(sizes),
        )

    def _sizes(self, told: Ints) -> Ints:
        drawn = self._payload.next(told).astype(np.int64)
        return np.where(told < 0, drawn, told)


class _Drawn:
    """A distribution with its own sources of randomness."""

    def __init__(self, distribution: Distribution, seed: list[int]) -> None:
        self._distribution = distribution
        self._is_random = not isinstance(distribution, Constant)
        self._normal = np.random.default_rng([*seed, 0])
        self._uniform = np.random.default_rng([*seed, 1])

    def next(self, sizes: Ints) -> Floats:
        """The values of the next requests, which have these sizes."""
        rows = len(sizes)
        if not self._is_random:
            nothing = np.zeros(rows)
            return self._distribution.draw(nothing, nothing, sizes)
        normal, uniform = self._normal.standard_normal(rows), self._uniform.random(rows)
        return self._distribution.draw(normal, uniform, sizes)


def _buckets(sizes: Ints) -> Ints:
    """`payload_bucket` of each size."""
    # frexp gives the bit length for whole numbers below 2**53.
    _, exponents = np.frexp(sizes.astype(np.float64))
    return np.minimum(exponents.astype(np.int64), payload_bucket(1 << 62))


def wishes(
    rules: Sequence[Rule],
    sizes: Ints,
    draw: Floats,
    senders: tuple[Ints, Sequence[Sender]],
) -> Ints:
    """What the first matching rule wishes for each request.

    Traces tell no headers, so a rule that asks for one never matches.
    """
    numbers, known = senders
    wished = np.full(len(sizes), WISH_NONE)
    for number in np.unique(numbers):
        open_ = numbers == number
        for rule in rules:
            if not open_.any():
                break
            if not _may_match(rule, known[number]):
                continue
            match = rule.match
            hit = open_ & (sizes >= match.min_bytes) & (sizes <= match.max_bytes)
            share = rule.route.serverless_share
            if share is None:
                wished[hit] = _WISHES[rule.route.backend]
            else:
                wished[hit] = np.where(draw[hit] < share, WISH_SERVERLESS, WISH_POOL)
            open_ &= ~hit
    return wished


def _may_match(rule: Rule, sender: Sender) -> bool:
    match = rule.match
    return (
        not match.headers
        and (not match.tenants or sender.tenant in match.tenants)
        and (not match.versions or sender.version in match.versions)
    )
