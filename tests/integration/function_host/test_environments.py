"""Environments against real processes: one at a time, reuse, limits, reclaim, isolation."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp

from tests.integration.function_host.host_process import (
    HANDLERS,
    REPOSITORY,
    HostClient,
    Reply,
    eventually,
    function,
    is_alive,
)


async def _start_blocked(
    client: HostClient, name: str, directory: Path, label: str
) -> tuple["asyncio.Task[Reply]", Path, int]:
    """Start an invocation that runs until its gate file exists; return it, the gate and its pid."""
    running, gate = directory / f"{label}.running", directory / f"{label}.gate"
    task = asyncio.create_task(
        client.invoke(name, {"touch": str(running)}, {"wait_for": str(gate)})
    )
    await eventually(lambda: running.exists() and running.read_text() != "", f"{label} runs")
    return task, gate, int(running.read_text())


async def test_concurrent_calls_get_environments_of_their_own_and_the_latest_is_reused(
    client: HostClient, name: str, tmp_path: Path
) -> None:
    await client.declare(function(name, max_concurrency=3))
    first, first_gate, first_pid = await _start_blocked(client, name, tmp_path, "first")
    second, second_gate, second_pid = await _start_blocked(client, name, tmp_path, "second")
    assert first_pid != second_pid
    assert [e["state"] for e in await client.environments(name)] == ["busy", "busy"]

    second_gate.touch()
    await second
    first_gate.touch()
    await first
    for _ in range(3):
        assert (await client.invoke(name)).json["pid"] == first_pid, "the most recently used one"
    states = {e["pid"]: e["invocations"] for e in await client.environments(name)}
    assert states == {first_pid: 4, second_pid: 1}


async def test_calls_over_the_limit_are_throttled(
    client: HostClient, name: str, tmp_path: Path
) -> None:
    await client.declare(function(name, max_concurrency=2))
    one, one_gate, _ = await _start_blocked(client, name, tmp_path, "one")
    two, two_gate, _ = await _start_blocked(client, name, tmp_path, "two")
    reply = await client.invoke(name)
    assert reply.status == 429
    assert reply.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
    assert reply.headers["Retry-After"] == "1"
    assert reply.json["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert reply.json["Type"] == "User"
    assert reply.json["message"]
    one_gate.touch()
    two_gate.touch()
    assert [(await task).status for task in (one, two)] == [200, 200]
    assert (await client.invoke(name)).status == 200
    view = await client.function_view(name)
    assert view["totals"]["throttles"] == 1
    assert view["totals"]["invocations"] == 3
    assert len(view["environments"]) == 2


async def test_a_crowd_is_served_by_at_most_the_limit(client: HostClient, name: str) -> None:
    await client.declare(function(name, max_concurrency=3))
    replies = await asyncio.gather(*(client.invoke(name, {"echo": i}) for i in range(12)))
    served = [(i, reply) for i, reply in enumerate(replies) if reply.status == 200]
    assert {reply.status for reply in replies} <= {200, 429}
    assert len(served) >= 3
    assert all(reply.json["echo"] == i for i, reply in served)
    assert len({reply.json["pid"] for _, reply in served}) <= 3


async def test_back_to_back_calls_at_limit_one_are_never_throttled(
    client: HostClient, name: str
) -> None:
    """The answer is out before the sandbox polls again: the next call waits for that poll."""
    await client.declare(function(name, max_concurrency=1))
    replies = [await client.invoke(name) for _ in range(50)]
    assert {reply.status for reply in replies} == {200}
    assert [reply.json["count"] for reply in replies] == list(range(1, 51))


async def test_an_idle_environment_is_reclaimed(client: HostClient, name: str) -> None:
    await client.declare(function(name, idle_s=0.2))
    pid = (await client.invoke(name)).json["pid"]

    async def is_gone() -> bool:
        return await client.environments(name) == []

    await eventually(is_gone, "reclaim")
    assert not is_alive(pid)
    again = await client.invoke(name)
    assert again.json["pid"] != pid
    assert (await client.function_view(name))["totals"]["cold"] == 2


async def test_a_sandbox_deaf_to_sigterm_is_killed(client: HostClient, name: str) -> None:
    await client.declare(function(name, idle_s=0.1))
    pid = (await client.invoke(name, {"ignore_sigterm": None})).json["pid"]
    await eventually(lambda: not is_alive(pid), "SIGKILL after the grace time")


async def test_a_sandbox_that_dies_idle_is_replaced(client: HostClient, name: str) -> None:
    await client.declare(function(name, max_concurrency=1))
    pid = (await client.invoke(name)).json["pid"]
    os.kill(pid, signal.SIGKILL)

    async def is_gone() -> bool:
        return await client.environments(name) == []

    await eventually(is_gone, "the dead environment leaves")
    assert (await client.invoke(name)).json["pid"] != pid


async def test_a_sandbox_that_stops_polling_is_killed_and_its_next_call_moves(
    client: HostClient, name: str
) -> None:
    await client.declare(function(name, max_concurrency=1))
    stuck = (await client.invoke(name, {"stop_polling": None})).json["pid"]
    reply = await client.invoke(name)
    assert reply.status == 200
    assert reply.json["pid"] != stuck
    await eventually(lambda: not is_alive(stuck), "the stuck sandbox is killed")


async def test_the_time_limit_kills_what_the_handler_started(
    client: HostClient, name: str, tmp_path: Path
) -> None:
    await client.declare(function(name, timeout_s=1))
    child = (await client.invoke(name, {"spawn_child": None})).json["spawn_child"]
    assert is_alive(child)
    reply = await client.invoke(
        name, {"ignore_sigterm": None}, {"wait_for": str(tmp_path / "never")}
    )
    assert reply.json["errorType"] == "Sandbox.Timedout"
    await eventually(lambda: not is_alive(child), "the group is killed")


async def test_a_call_runs_on_without_its_caller(
    client: HostClient, name: str, tmp_path: Path
) -> None:
    await client.declare(function(name, max_concurrency=1))
    running, gate, done = (tmp_path / part for part in ("running", "gate", "done"))
    steps = [{"touch": str(running)}, {"wait_for": str(gate)}, {"touch": str(done)}]
    async with aiohttp.ClientSession() as leaving:
        url = f"{client.host.url}/2015-03-31/functions/{name}/invocations"
        call = asyncio.create_task(leaving.post(url, json={"steps": steps}))
        await eventually(running.exists, "the call runs")
        call.cancel()
        await asyncio.wait({call})
    assert (await client.invoke(name)).status == 429, "the abandoned call still counts"
    gate.touch()
    await eventually(done.exists, "the handler finishes")

    async def is_idle() -> bool:
        return [e["state"] for e in await client.environments(name)] == ["idle"]

    await eventually(is_idle, "the environment comes back")
    assert (await client.invoke(name)).json["count"] == 2, "the same warm environment"


async def test_a_sandbox_sees_its_own_variables_and_none_of_the_hosts(
    client: HostClient, name: str
) -> None:
    await client.declare(
        function(name, memory_mb=3600, environment={"MODEL_NAME": "magika", "TZ": "Europe/Rome"})
    )
    answer = (await client.invoke(name, {"variables": None}, {"cwd": None})).json
    variables = answer["variables"]
    api = variables.pop("AWS_LAMBDA_RUNTIME_API")
    assert api.startswith("127.0.0.1:")
    assert api.rpartition(":")[2] != str(client.host.port)
    assert variables.pop("AWS_EXECUTION_ENV").startswith("AWS_Lambda_python3.")
    assert variables.pop("PATH")
    variables.pop("LC_CTYPE", None)  # Python's own doing
    assert variables == {
        "LANG": "C.UTF-8",
        "TZ": "Europe/Rome",
        "MODEL_NAME": "magika",
        "MODEL_THREADS": "2",
        "PYTHONPATH": f"{HANDLERS}:{REPOSITORY}",
        "LAMBDA_TASK_ROOT": str(HANDLERS),
        "_HANDLER": "scripted.handler",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3600",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
    }
    assert answer["cwd"] == str(HANDLERS)


async def test_a_sandbox_cannot_break_the_runtime_protocol(
    client: HostClient, name: str, tmp_path: Path
) -> None:
    """It may neither take a second invocation nor answer one that is not its own."""
    await client.declare(function(name, max_concurrency=2))
    other, gate, _ = await _start_blocked(client, name, tmp_path, "other")
    base = "/2018-06-01/runtime"
    reply = await client.invoke(
        name,
        {"runtime_api": ["GET", f"{base}/invocation/next"]},
    )
    assert reply.json["runtime_api"] == 403
    for path, status in (
        (f"{base}/invocation/00000000-0000-0000-0000-000000000000/response", 400),
        (f"{base}/invocation/00000000-0000-0000-0000-000000000000/error", 400),
        (f"{base}/init/error", 403),
        ("/2015-03-31/functions/x/invocations", 404),
        ("/host/functions", 404),
    ):
        reply = await client.invoke(name, {"runtime_api": ["POST", path]})
        assert (path, reply.json["runtime_api"]) == (path, status)
    gate.touch()
    assert (await other).status == 200
