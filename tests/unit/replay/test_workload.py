"""What is drawn for requests, and what rules wish for them."""

from dataclasses import replace

import numpy as np
import pytest

from router.domain.decision import Backend
from router.policy.estimates import payload_bucket
from router.policy.rules import first_match
from router.replay.arrivals import Arrivals, Sender, bare
from router.replay.workload import (
    WISH_NONE,
    WISH_POOL,
    WISH_SERVERLESS,
    Block,
    Workload,
    wishes,
)
from tests.fakes.builders import make_request
from tests.fakes.replays import make_runtime, make_setup

RULES = """
rules:
  - {name: big, match: {payload: ">1KiB"}, route: pool}
  - {name: header, match: {header: {x-priority: bulk}}, route: pool}
  - {name: nightly, match: {tenant: [nightly]}, route: serverless}
  - {name: canary, match: {version: "2"}, route: {serverless: 30, pool: 70}}
  - {name: other, match: {model: "z*"}, route: pool}
  - {name: rest, match: {}, route: auto}
"""
SENDERS = [Sender(), Sender("nightly"), Sender("daily", "2"), Sender(None, "2")]
_WISHES = {None: WISH_NONE, Backend.POOL: WISH_POOL, Backend.SERVERLESS: WISH_SERVERLESS}
RANDOM_WORLD = (
    "{service_time_ms: {lognormal: {p50: 80, p99: 300}}, payload_bytes: {exponential: 1000},"
    " serverless: {overhead_ms: {exponential: 5}, cold_start_ms: {exponential: 500}}}"
)


def test_wishes_are_those_of_the_first_matching_rule() -> None:
    rules = make_runtime(rules=RULES).models["m"].policy.rules
    generator = np.random.default_rng(3)
    sizes = generator.integers(0, 2048, 500)
    numbers = generator.integers(0, len(SENDERS), 500)
    draw = generator.random(500)
    wished = wishes(rules, sizes, draw, (numbers, SENDERS))
    for row in range(500):
        sender = SENDERS[numbers[row]]
        request = make_request(
            payload_bytes=int(sizes[row]), tenant=sender.tenant, version=sender.version
        )
        wish = first_match(rules, request).route.wish(draw[row])
        assert wished[row] == _WISHES[wish]
    assert set(wished.tolist()) == {WISH_NONE, WISH_POOL, WISH_SERVERLESS}


def columns(blocks: list[Block]) -> dict[str, list[float]]:
    return {
        name: np.concatenate([getattr(block, name) for block in blocks]).tolist()
        for name in ("payload_bytes", "service_s", "function_s", "overhead_s", "cold_s", "wish")
    }


def test_draws_do_not_depend_on_where_blocks_end() -> None:
    setup = make_setup(RANDOM_WORLD, rules=RULES)
    at = np.arange(1000.0)
    whole = Workload(setup, 1)
    parts = Workload(setup, 1)
    one = [whole.block(bare(at, 0), [Sender()])]
    several = [
        parts.block(bare(at[cut], 0), [Sender()])
        for cut in (slice(0, 1), slice(1, 700), slice(700, 1000))
    ]
    assert columns(one) == columns(several)


def test_another_seed_draws_something_else() -> None:
    setup = make_setup(RANDOM_WORLD)
    first, second = (
        Workload(setup, seed).block(bare(np.arange(50.0), 0), [Sender()]) for seed in (1, 2)
    )
    assert first.service_s.tolist() != second.service_s.tolist()


def test_the_same_request_is_long_on_both_backends() -> None:
    block = Workload(make_setup(RANDOM_WORLD), 1).block(bare(np.arange(50.0), 0), [Sender()])
    assert block.service_s.tolist() == block.function_s.tolist()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1023, 1024, 6_000_000, 1 << 39, 1 << 40])
def test_buckets_are_those_of_the_policy(size: int) -> None:
    arrivals = replace(bare(np.zeros(1), 0), payload_bytes=np.array([size]))
    block = Workload(make_setup(), 1).block(arrivals, [Sender()])
    assert block.bucket.tolist() == [payload_bucket(size)]


@pytest.mark.parametrize(
    ("size", "fits"), [(6_291_556 - 2048, True), (6_291_556 - 2047, False)], ids=["fits", "not"]
)
def test_what_fits_is_what_the_policy_thinks_fits(size: int, fits: bool) -> None:
    arrivals = replace(bare(np.zeros(1), 0), payload_bytes=np.array([size]))
    block = Workload(make_setup(), 1).block(arrivals, [Sender()])
    assert block.fits.tolist() == [fits]


def test_sizes_that_the_trace_tells_are_kept() -> None:
    arrivals = Arrivals(*(np.zeros(2, kind) for kind in (float, int, int, float, int, float)))
    arrivals = replace(arrivals, payload_bytes=np.array([-1, 77]))
    block = Workload(make_setup("{payload_bytes: 5}"), 1).block(arrivals, [Sender()])
    assert block.payload_bytes.tolist() == [5, 77]
