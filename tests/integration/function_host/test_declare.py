"""PUT and GET /host/functions: the full set, replaced at once or not at all."""

import asyncio
from pathlib import Path

import pytest

from tests.integration.function_host.host_process import (
    HostClient,
    eventually,
    function,
    is_alive,
)


async def test_the_view_shows_settings_environments_and_totals(
    client: HostClient, name: str
) -> None:
    await client.declare(function(name, environment={"TOKEN": "secret"}, memory_mb=256))
    pid = (await client.invoke(name)).json["pid"]
    view = await client.view()
    (shown,) = view["functions"]
    environment = shown["environments"][0]
    assert 0 < environment.pop("age_s") < 60
    assert environment.pop("state") in {"idle", "returning"}
    assert environment == {"id": 1, "pid": pid, "invocations": 1}
    assert shown["memory_mb"] == 256
    assert shown["environment"] == ["TOKEN"], "names only"
    assert shown["totals"].pop("billed_ms") > 0
    assert shown["totals"] == {"invocations": 1, "cold": 1, "throttles": 0, "errors": 0}
    assert set(view["totals"]) == {"invocations", "cold", "throttles", "errors", "billed_ms"}
    assert view["totals"]["invocations"] >= 1


async def test_an_unchanged_function_keeps_its_warm_environment(
    client: HostClient, name: str
) -> None:
    await client.declare(function(name))
    pid = (await client.invoke(name)).json["pid"]
    await client.declare(function(f"{name}-new"), function(name))
    assert (await client.invoke(name)).json["pid"] == pid
    assert (await client.invoke(f"{name}-new")).json["pid"] != pid


@pytest.mark.parametrize("removed", [False, True], ids=["changed", "removed"])
async def test_a_replaced_function_finishes_what_it_runs_and_stops(
    removed: bool, client: HostClient, name: str, tmp_path: Path
) -> None:
    await client.declare(function(name))
    await client.invoke(name)
    running, gate = tmp_path / "running", tmp_path / "gate"
    call = asyncio.create_task(
        client.invoke(name, {"touch": str(running)}, {"wait_for": str(gate)})
    )
    await eventually(lambda: running.exists() and running.read_text() != "", "the call runs")
    old_pid = int(running.read_text())

    reply = await client.declare(*([] if removed else [function(name, memory_mb=4096)]))
    assert reply.status == 200
    assert [item["name"] for item in (await client.view())["retiring"]] == [name]
    fresh = await client.invoke(name, {"variables": None})
    if removed:
        assert fresh.status == 404
    else:
        assert fresh.json["pid"] != old_pid
        assert fresh.json["variables"]["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "4096"

    assert is_alive(old_pid)
    gate.touch()
    assert (await call).json["pid"] == old_pid

    async def has_ended() -> bool:
        return not (await client.view())["retiring"]

    await eventually(has_ended, "the old function ends")
    assert not is_alive(old_pid)


async def test_idle_environments_of_a_removed_function_stop(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    pid = (await client.invoke(name)).json["pid"]
    await client.declare()
    await eventually(lambda: not is_alive(pid), "the idle sandbox stops")


async def test_a_bad_set_changes_nothing_and_names_every_error(
    client: HostClient, name: str
) -> None:
    await client.declare(function(name))
    pid = (await client.invoke(name)).json["pid"]
    reply = await client.declare(function(name, memory_mb=1), {"name": "a b"}, function("ok"))
    assert reply.status == 400
    assert reply.json["errors"] == [
        "functions[0].memory_mb = 1, must be a whole number in 128..10240",
        "functions[1].name = 'a b', must be 1 to 140 letters, digits, '.', '_' or '-'",
        "functions[1].handler = None, must be module.function",
    ]
    assert [item["name"] for item in (await client.view())["functions"]] == [name]
    assert (await client.invoke(name)).json["pid"] == pid


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 400, id="not JSON"),
        pytest.param(b"\xff", 400, id="not UTF-8"),
        pytest.param(b"[" * 100_000, 400, id="endless nesting"),
        pytest.param(b"[]", 400, id="not an object"),
        pytest.param(b" " * (4 * 1024 * 1024 + 1), 413, id="too large"),
    ],
)
async def test_a_hostile_declaration_is_refused(
    body: bytes, status: int, client: HostClient
) -> None:
    reply = await client.request("PUT", "/host/functions", data=body)
    assert reply.status == status
    assert reply.json["errors"]


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site"])
async def test_a_web_page_may_not_declare_or_look(
    method: str, header: str, client: HostClient
) -> None:
    reply = await client.request(
        method, "/host/functions", json={"functions": []}, headers={header: "http://127.0.0.1"}
    )
    assert reply.status == 403


async def test_health_is_ok_while_it_serves(client: HostClient) -> None:
    reply = await client.request("GET", "/host/health")
    assert (reply.status, reply.json) == (200, {"status": "ok"})
