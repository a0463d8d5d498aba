"""World files: what they may say, how mistakes are told, and what is drawn from them."""

import math

import numpy as np
import pytest

from router.replay.distributions import Constant, Distribution
from router.replay.world import load_world, model_world, parse_world
from router.settings.loader import ConfigError
from tests.fakes.replays import make_runtime, make_setup

ROWS = 40_000


def service(text: str) -> Distribution:
    return make_setup(f"{{service_time_ms: {text}}}").world.service_s


def drawn(distribution: Distribution, sizes: int | np.ndarray = 1000) -> np.ndarray:
    generator = np.random.default_rng(5)
    of = np.full(ROWS, sizes) if isinstance(sizes, int) else sizes
    return distribution.draw(generator.standard_normal(len(of)), generator.random(len(of)), of)


def test_the_bundled_world_loads_and_leaves_prices_to_the_configuration() -> None:
    model = make_runtime().models["m"]
    world = model_world(load_world(None), model)
    assert world.replica_usd_per_s == pytest.approx(0.036 / 3600)
    assert world.function is not None
    assert world.function.usd_per_request == 0.000001
    assert world.function.usd_per_billed_s == pytest.approx(0.00002)
    assert (world.service_s, world.concurrency) == (Constant(0.1), 2)


def test_a_google_function_costs_its_cpus_as_well() -> None:
    function = (
        "{kind: google_function, url: 'https://f.example', memory_mb: 2048, vcpus: 2, price:"
        " {usd_per_request: 0, usd_per_gb_s: 0.001, usd_per_vcpu_s: 0.01, billing_step_ms: 100}}"
    )
    runtime = make_runtime(serverless=function).models["m"]
    world = model_world(load_world(None), runtime).function
    assert world is not None
    assert runtime.serverless is not None
    assert world.usd_per_billed_s == pytest.approx(0.022)
    assert world.compute_usd(np.array([0.25])) == pytest.approx(0.3 * 0.022)
    assert runtime.serverless.params.price_usd(0.25) == pytest.approx(0.3 * 0.022)
    cheap = parse_world(b"dated: 2026-11-01\ndefault: {serverless: {usd_per_vcpu_s: 0}}", "w")
    world = model_world(cheap, runtime).function
    assert world is not None
    assert world.usd_per_billed_s == pytest.approx(0.002)


def test_a_models_own_keys_win_over_the_default_ones() -> None:
    text = b"""
dated: 2026-11-01
default: {startup_s: 5, min_billing_s: 7, serverless: {reclaim_s: 11, overhead_ms: 13}}
models: {m: {startup_s: 50, serverless: {reclaim_s: 110}}}
"""
    world = model_world(parse_world(text, "w.yaml"), make_runtime().models["m"])
    assert (world.startup_s, world.min_billing_s) == (Constant(50), 7)
    assert world.function is not None
    assert (world.function.reclaim_s, world.function.overhead_s) == (110, Constant(0.013))


DISTRIBUTIONS = {
    "constant": ("80", {50: 0.08, 99: 0.08}),
    "lognormal": ("{lognormal: {p50: 80, p99: 240}}", {50: 0.08, 99: 0.24}),
    "exponential": ("{exponential: 100}", {50: 0.1 * math.log(2), 99: 0.1 * math.log(100)}),
    "empirical": ("{empirical: [10, 20, 40]}", {25: 0.015, 50: 0.02, 75: 0.03}),
}


@pytest.mark.parametrize(("text", "percentiles"), DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_draws_have_the_percentiles_that_are_written(
    text: str, percentiles: dict[int, float]
) -> None:
    values = drawn(service(text))
    for percent, seconds in percentiles.items():
        assert np.percentile(values, percent) == pytest.approx(seconds, rel=0.05)


def test_steps_by_payload_apply_up_to_and_including_their_bound() -> None:
    steps = service(
        "{by_payload: [{up_to: 1KiB, value: 10}, {up_to: 2KiB, value: 20}, {value: 30}]}"
    )
    sizes = np.array([0, 1024, 1025, 2048, 2049])
    assert drawn(steps, sizes).tolist() == [0.01, 0.01, 0.02, 0.02, 0.03]


MISTAKES = {
    "a negative time": ("service_time_ms: -1", "default.service_time_ms = -1, must be"),
    "infinity": ("service_time_ms: .inf", "default.service_time_ms = .inf, must be"),
    "p99 below p50": ("service_time_ms: {lognormal: {p50: 9, p99: 8}}", "must be milliseconds"),
    "one quantile": ("service_time_ms: {empirical: [1]}", "must be milliseconds"),
    "quantiles that fall": ("service_time_ms: {empirical: [2, 1]}", "must be milliseconds"),
    "steps without an end": (
        "service_time_ms: {by_payload: [{up_to: 1KiB, value: 1}]}", "must be milliseconds",
    ),
    "an unknown kind": ("service_time_ms: {pareto: 3}", "must be milliseconds"),
    "an unknown key": ("start_up_s: 3", "did you mean startup_s?"),
    "a concurrency of zero": ("concurrency: 0", "default.concurrency = 0, must be"),
    "a factor below one": ("slowdown_at_once: [1, 0.5]", "default.slowdown_at_once must be"),
    "no factors": ("slowdown_at_once: []", "must be a list of 1 to 64 numbers"),
    "a crash at once": ("crash_after_s: 0", "must be seconds"),
    "half a storm": ("serverless: {refusal_storms: {every_s: 60}}", "refusal_storms.for_s"),
    "a huge payload": ("serverless: {max_payload_bytes: -1}", "default.serverless.max_payload"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_with_key_value_and_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_world(f"dated: 2026-11-01\ndefault:\n  {text}\n".encode(), "w.yaml")
    assert str(caught.value).startswith("w.yaml:3: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"dated: soon", b"[", b"seed: 1"])
def test_files_that_are_no_world_are_refused(content: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_world(content, "w.yaml")
