"""`measure-cold`: real cold starts of the local host, a world file, and why there may be none."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from router.assembly.runtime import new_parts
from router.commands.cold import _why_none
from router.commands.cold_measure import (
    ColdReport,
    NotMeasurableError,
    Observed,
    Plan,
    measure,
    quantile,
    report_on,
    world_of,
)
from router.replay.world import load_world
from router.settings.loader import load
from tests.fakes.models import write_identity
from tests.fakes.oip import infer_json, json_input
from tests.fakes.upstreams import ok
from tests.fakes.url_platform import UrlPlatform, running, serving
from tests.integration.harness import Harness

FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}


def write_config(folder: Path, serverless: dict[str, Any]) -> Path:
    model = {"name": "echo", "slo": {"latency_ms": 1000}, "serverless": serverless}
    path = folder / "router.yaml"
    path.write_text(yaml.safe_dump({"models": [model], "workers": {"repository": "models"}}))
    return path


def command(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "router", "measure-cold", "--config", str(config)),
            *("--model", "echo", *options),
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_local_host_is_measured_and_replay_can_read_it(tmp_path: Path) -> None:
    write_identity(tmp_path / "models", "echo")
    config = write_config(tmp_path, {"kind": "local", "max_concurrency": 2})
    body, out = tmp_path / "body.json", tmp_path / "world.yaml"
    body.write_bytes(infer_json(json_input("x", "FP32", [1, 1], [1.0])))
    done = command(config, "--calls", "2", "--body", str(body), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "a cold start adds" in done.stdout
    assert "(2 calls)" in done.stdout
    world = load_world(out)
    function = world.models["echo"].serverless
    assert function.cold_start_ms is not None
    assert function.service_time_ms is not None


def test_figures_that_cannot_be_kept_are_shown_all_the_same(tmp_path: Path) -> None:
    write_identity(tmp_path / "models", "echo")
    config = write_config(tmp_path, {"kind": "local", "max_concurrency": 1})
    done = command(config, "--calls", "1", "--out", str(tmp_path))
    assert (done.returncode, "a cold start adds" in done.stdout) == (1, True), done.stderr
    assert f"{tmp_path} cannot be written: Is a directory" in done.stderr


async def answered(folder: Path, platform: UrlPlatform, plan: Plan) -> ColdReport:
    async with running(platform):
        settings = {"kind": "http_function", "url": platform.url, "price": FREE}
        config = await asyncio.to_thread(write_config, folder, settings)
        loaded = await asyncio.to_thread(load, config, {})
        return await measure(loaded, new_parts(), "echo", plan, lambda: None)


def cold(value: str, init_ms: str = "250") -> web.Response:
    return web.json_response({}, headers={"x-cold-start": value, "x-init-ms": init_ms})


async def test_all_calls_of_a_round_are_made_at_once(tmp_path: Path) -> None:
    platform = UrlPlatform(answers=[cold("true") for _ in range(6)])
    platform.answers += [cold("false") for _ in range(2)]
    gate = platform.gate = asyncio.Event()

    async def open_gate() -> None:
        await platform.wait_for_calls(3)
        gate.set()

    opening = asyncio.create_task(open_gate())
    report = await answered(tmp_path, platform, Plan(calls=3, rounds=2, warm=2))
    await opening
    assert platform.most_in_flight == 3
    assert (len(report.cold), len(report.warm), report.init) == (6, 2, (0.25,) * 6)
    assert min(report.cold) >= 0.25


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([web.json_response] * 3, "no call took longer than a warm one"),
        ([lambda _: cold("false")] * 3, "no call started cold"),
        ([lambda _: web.Response(status=500)] * 3, "no call succeeded"),
    ],
    ids=["the platform does not tell", "all were warm", "all failed"],
)
async def test_why_there_is_nothing_to_show(tmp_path: Path, answers: Any, told: str) -> None:
    platform = UrlPlatform(answers=[make({}) for make in answers])
    report = await answered(tmp_path, platform, Plan(calls=2, warm=1))
    assert report.cold == ()
    assert told in _why_none(report)
    assert sum(report.failures.values()) == (3 if "succeeded" in told else 0)


async def test_a_model_without_a_function_cannot_be_measured(tmp_path: Path) -> None:
    config = await asyncio.to_thread(write_config, tmp_path, {"kind": "local"})
    loaded = await asyncio.to_thread(load, config, {})
    with pytest.raises(NotMeasurableError, match="other is not configured"):
        await measure(loaded, new_parts(), "other", Plan(), lambda: None)


def test_what_a_cold_start_adds_is_more_than_its_init() -> None:
    observed = [
        Observed(0.1, cold_start=False, init_s=None),
        Observed(0.3, cold_start=False, init_s=None),
        Observed(1.2, cold_start=True, init_s=0.8),
        Observed(0.5, cold_start=True, init_s=0.6),
    ]
    report = report_on(observed, {})
    assert report.cold == pytest.approx((0.6, 1.0))
    assert (report.warm, report.init) == ((0.1, 0.3), (0.6, 0.8))


def at_once(seconds: float) -> Observed:
    return Observed(seconds, cold_start=None, init_s=None)


def in_turn(seconds: float) -> Observed:
    return Observed(seconds, cold_start=None, init_s=None, is_in_turn=True)


def test_where_nothing_tells_the_time_does() -> None:
    """Calls made one after another are warm; what is above them by half a cold start is cold."""
    seconds = [0.9, 0.12, 0.14, 1.1]
    observed = [at_once(s) for s in seconds] + [in_turn(s) for s in (0.1, 0.11, 0.09, 0.1)]
    report = report_on(observed, {}, cold_start_s=1.0)
    assert report.cold == pytest.approx((0.79, 0.99), abs=0.02)
    assert len(report.warm) == 6
    assert (report.by_time, report.untold) == (8, 0)
    assert report_on(observed, {}, cold_start_s=2.5).cold == ()


def test_without_warm_calls_to_compare_with_nothing_is_guessed() -> None:
    report = report_on([at_once(0.1), at_once(2.0)], {}, cold_start_s=1.0)
    assert (report.cold, report.warm, report.by_time, report.untold) == ((), (), 0, 2)
    assert "set cold_start_header or instance_header" in _why_none(report)


def test_what_a_platform_tells_is_not_judged_again() -> None:
    told = Observed(0.1, cold_start=True, init_s=None)
    report = report_on([told, in_turn(0.1), in_turn(0.1)], {}, cold_start_s=1.0)
    assert (len(report.cold), report.by_time) == (1, 2)


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.25, 1.5), (1.0, 3.0)], ids=str
)
def test_quantiles_are_interpolated(share: float, value: float) -> None:
    assert quantile((1.0, 2.0, 3.0), share) == pytest.approx(value)


def test_many_calls_become_few_points() -> None:
    report = ColdReport(tuple(i / 1000 for i in range(5000)), (), (), 0, {})
    world = world_of("m", report, "2026-11-24", with_service_time=True)
    function = world["models"]["m"]["serverless"]
    points = function["cold_start_ms"]["empirical"]
    assert (len(points), points[0], points[-1]) == (101, 0.0, 4999.0)
    assert "service_time_ms" not in function


async def test_the_status_shows_how_long_cold_starts_took(tmp_path: Path) -> None:
    times = iter(["100", "300", "200"])

    async def handle(_request: web.Request) -> web.Response:
        return cold("true", next(times))

    async with serving(handle) as url:
        serverless = {"kind": "http_function", "url": url, "price": FREE}
        async with Harness(tmp_path, warm=[ok()], model={"serverless": serverless}) as gateway:
            before = (await gateway.status())["serverless"]
            replies = [await gateway.infer(x_router_backend="serverless") for _ in range(3)]
            after = (await gateway.status())["serverless"]
    assert {reply.headers["x-router-cold-start"] for reply in replies} == {"true"}
    assert (before["init_p50_ms"], before["init_p99_ms"]) == (None, None)
    assert (after["init_p50_ms"], after["init_p99_ms"]) == (200.0, 300.0)
    assert after["cold_calls"] == 3
