"""The Invoke API against real sandboxes: answers, errors, logs, refusals."""

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.function_host.host_process import (
    HostClient,
    HostProcess,
    Reply,
    eventually,
    function,
    is_alive,
)

MAX_PAYLOAD_BYTES = 6_291_556
TAIL = {"X-Amz-Log-Type": "Tail"}


async def test_answers_with_the_handlers_result(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    reply = await client.invoke(name, {"echo": {"ä": [1, 2.5, None]}})
    assert reply.status == 200
    assert reply.json["echo"] == {"ä": [1, 2.5, None]}
    assert reply.headers["X-Amz-Executed-Version"] == "$LATEST"
    assert reply.headers["x-amzn-RequestId"] == reply.json["request_id"]
    assert "X-Amz-Function-Error" not in reply.headers
    assert "X-Amz-Log-Result" not in reply.headers
    assert reply.json["arn"].endswith(f":function:{name}")
    assert 8000 < reply.json["remaining_ms"] <= 10_000


async def test_accepts_the_version_latest_and_a_signature_it_ignores(
    client: HostClient, name: str
) -> None:
    await client.declare(function(name))
    reply = await client.invoke_raw(
        name, b"{}", headers={"Authorization": "AWS4-HMAC-SHA256 x"}, query="?Qualifier=$LATEST"
    )
    assert reply.status == 200


async def test_an_empty_body_is_an_empty_event(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    assert (await client.invoke_raw(name, b"")).json["count"] == 1


async def test_reports_a_cold_start_once_and_bills_it(client: HostClient, name: str) -> None:
    await client.declare(function(name, memory_mb=512))
    cold = await client.invoke(name, {"print": "hello cold"}, headers=TAIL)
    warm = await client.invoke(name, {"print": "hello warm"}, headers=TAIL)
    assert cold.json["pid"] == warm.json["pid"]

    request_id = warm.headers["x-amzn-RequestId"]
    lines = warm.log.splitlines()
    assert lines[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert lines[1] == "hello warm"
    assert lines[2] == f"END RequestId: {request_id}"
    report = dict(field.split(": ", 1) for field in lines[3].removeprefix("REPORT ").split("\t"))
    assert list(report) == [
        "RequestId",
        "Duration",
        "Billed Duration",
        "Memory Size",
        "Max Memory Used",
    ]
    assert report["Memory Size"] == "512 MB"
    assert int(report["Max Memory Used"].split()[0]) >= 5

    cold_report = cold.log.splitlines()[-1]
    assert "hello cold" in cold.log
    assert "hello" not in "".join(lines[3:])
    init_ms = float(cold_report.rpartition("Init Duration: ")[2].split()[0])
    billed_ms = float(cold_report.partition("Billed Duration: ")[2].split()[0])
    assert 5 < init_ms < billed_ms

    def logged(reply: Reply) -> dict[str, Any]:
        events = client.host.log("invocation")
        return next(e for e in events if e["request_id"] == reply.headers["x-amzn-RequestId"])

    await eventually(lambda: request_id in client.host.stderr(), "log line of the warm call")
    assert logged(cold)["cold"] is True
    assert logged(cold)["billed_ms"] == billed_ms
    assert logged(cold)["init_ms"] == pytest.approx(init_ms, abs=0.01)
    assert logged(warm) == {
        "event": "invocation",
        "function": name,
        "request_id": request_id,
        "status": "ok",
        "duration_ms": pytest.approx(float(report["Duration"].split()[0]), abs=0.01),
        "billed_ms": int(report["Billed Duration"].split()[0]),
        "init_ms": None,
        "cold": False,
    }


async def test_a_flood_of_output_is_bounded_everywhere(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    before = len(client.host.stderr())
    reply = await client.invoke(name, {"print_lines": 20_000}, headers=TAIL)
    assert reply.status == 200
    assert len(reply.log) == 4096
    assert reply.log.splitlines()[-1].startswith("REPORT")
    assert f"line 19999 {'x' * 50}" in reply.log
    await client.invoke(name, {"print": "after the flood"})
    await eventually(lambda: name in client.host.stderr()[before:], "any output")
    assert len(client.host.stderr()) - before < 200_000


@pytest.mark.parametrize(
    ("step", "error_type", "message", "status"),
    [
        pytest.param(
            {"raise": "bad input"}, "ValueError", "bad input", "function_error", id="raise"
        ),
        pytest.param(
            {"exit": 3}, "Runtime.ExitError", "with error: exit status 3", "crashed", id="exit 3"
        ),
        pytest.param(
            {"exit": 0}, "Runtime.ExitError", "without providing a reason", "crashed", id="exit 0"
        ),
        pytest.param(
            {"kill_self": signal.SIGKILL},
            "Runtime.ExitError",
            "signal: killed",
            "crashed",
            id="kill",
        ),
        pytest.param(
            {"wait_for": "/nonexistent"},
            "Sandbox.Timedout",
            "Task timed out after 0.40 seconds",
            "timed_out",
            id="time limit",
        ),
        pytest.param(
            {"repeat_x": MAX_PAYLOAD_BYTES},
            "Function.ResponseSizeTooLarge",
            "6291556 bytes",
            "response_too_large",
            id="response over 6 MB",
        ),
    ],
)
async def test_a_failing_handler_is_a_function_error_and_the_next_call_works(
    step: dict[str, Any],
    error_type: str,
    message: str,
    status: str,
    client: HostClient,
    name: str,
) -> None:
    await client.declare(function(name, timeout_s=0.4, max_concurrency=1))
    reply = await client.invoke(name, step, headers=TAIL)
    assert reply.status == 200
    assert reply.headers["X-Amz-Function-Error"] == "Unhandled"
    assert reply.json["errorType"] == error_type
    assert message in reply.json["errorMessage"]
    assert reply.log.splitlines()[-1].startswith("REPORT")
    if error_type == "ValueError":
        assert "scripted.py" in "".join(reply.json["stackTrace"])
    assert (await client.invoke(name)).status == 200
    view = await client.function_view(name)
    assert view["totals"]["errors"] == 1
    assert view["totals"]["invocations"] == 2
    await eventually(
        lambda: (
            [e["status"] for e in client.host.log("invocation") if e["function"] == name]
            == [status, "ok"]
        ),
        "both log lines",
    )


async def test_a_response_just_below_the_limit_passes(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    reply = await client.invoke(name, {"repeat_x": MAX_PAYLOAD_BYTES - 1000})
    assert reply.status == 200
    assert len(reply.json["repeat_x"]) == MAX_PAYLOAD_BYTES - 1000


async def test_an_event_of_exactly_the_limit_passes(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    event = b'{"steps":[],"x":"' + b"y" * (MAX_PAYLOAD_BYTES - 19) + b'"}'
    assert len(event) == MAX_PAYLOAD_BYTES
    assert (await client.invoke_raw(name, event)).json["count"] == 1


@pytest.mark.parametrize(
    ("handler", "error_type", "message"),
    [
        pytest.param("broken_import.handler", "RuntimeError", "no model here", id="import raises"),
        pytest.param(
            "scripted.missing", "Runtime.HandlerNotFound", "missing", id="handler missing"
        ),
        pytest.param("no_module.handler", "Runtime.ImportModuleError", "no_module", id="no module"),
        pytest.param("exiting_import.handler", "Runtime.ExitError", "exit status 7", id="exits"),
    ],
)
async def test_a_failed_init_is_reported_billed_and_tried_again(
    handler: str, error_type: str, message: str, client: HostClient, name: str
) -> None:
    await client.declare(function(name, handler=handler, max_concurrency=1))
    for _ in range(2):
        reply = await client.invoke(name, headers=TAIL)
        assert reply.status == 200
        assert reply.headers["X-Amz-Function-Error"] == "Unhandled"
        assert reply.json["errorType"] == error_type
        assert message in reply.json["errorMessage"]
        assert "Init Duration" in reply.log
    totals = (await client.function_view(name))["totals"]
    assert (totals["cold"], totals["errors"], totals["invocations"]) == (2, 2, 2)
    assert totals["billed_ms"] > 10


async def test_an_init_that_hangs_is_killed_at_its_limit(
    client: HostClient, name: str, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    await client.declare(
        function(
            name,
            handler="hanging_import.handler",
            init_timeout_s=1.5,
            environment={"PID_FILE": str(pid_file)},
        )
    )
    reply = await client.invoke(name)
    assert reply.json["errorType"] == "Sandbox.Timedout"
    assert "Init timed out after 1.50 seconds" in reply.json["errorMessage"]
    assert not is_alive(int(pid_file.read_text()))
    assert (await client.function_view(name))["totals"]["billed_ms"] >= 1500


@pytest.mark.parametrize(
    ("path", "headers", "body", "answer"),
    [
        pytest.param(
            "nobody", {}, b"{}", (404, "ResourceNotFoundException"), id="unknown function"
        ),
        pytest.param(
            "{f}?Qualifier=7", {}, b"{}", (404, "ResourceNotFoundException"), id="unknown version"
        ),
        pytest.param(
            "{f}",
            {"X-Amz-Invocation-Type": "Event"},
            b"{}",
            (400, "InvalidParameterValueException"),
            id="asynchronous invocation",
        ),
        pytest.param(
            "{f}",
            {"X-Amz-Log-Type": "All"},
            b"{}",
            (400, "InvalidParameterValueException"),
            id="unknown log type",
        ),
        *(
            pytest.param("{f}", {}, body, (400, "InvalidRequestContentException"), id=label)
            for label, body in {
                "truncated JSON": b'{"a":',
                "two documents": b"{} {}",
                "NaN": b"NaN",
                "bad UTF-8": b'{"a":"\xff"}',
                "endless nesting": b"[" * 200_000,
                "gzip": b"\x1f\x8b\x08\x00",
            }.items()
        ),
        pytest.param(
            "{f}",
            {},
            b" " * (MAX_PAYLOAD_BYTES + 1),
            (413, "RequestTooLargeException"),
            id="one byte over the limit",
        ),
    ],
)
async def test_refusals(
    path: str,
    headers: dict[str, str],
    body: bytes,
    answer: tuple[int, str],
    client: HostClient,
    name: str,
) -> None:
    await client.declare(function(name, max_concurrency=1))
    target, _, query = path.format(f=name).partition("?")
    reply = await client.invoke_raw(target, body, headers, query=f"?{query}" if query else "")
    assert (reply.status, reply.headers["x-amzn-ErrorType"]) == answer
    assert reply.headers["x-amzn-RequestId"]
    assert reply.json["Type"] == "User"
    assert reply.json["message"]
    assert (await client.environments(name)) == []
    assert (await client.invoke(name)).status == 200, "the refusal kept its reservation"


async def test_a_chunked_body_over_the_limit_is_refused(client: HostClient, name: str) -> None:
    await client.declare(function(name, max_concurrency=1))

    async def chunks() -> Any:
        for _ in range(MAX_PAYLOAD_BYTES // 65536 + 1):
            yield b" " * 65536

    reply = await client.invoke_raw(name, chunks())
    assert reply.status == 413
    assert (await client.invoke(name)).status == 200


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"], ids=["plain", "expect"])
async def test_an_announced_body_over_the_limit_is_refused_unread(
    expect: str, client: HostClient, name: str
) -> None:
    await client.declare(function(name))
    head = _head(client.host, name, f"Content-Length: 1000000000\r\n{expect}")
    with socket.create_connection(("127.0.0.1", client.host.port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


async def test_a_body_after_100_continue_is_taken(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    head = _head(client.host, name, "Content-Length: 2\r\nExpect: 100-continue\r\n")
    with socket.create_connection(("127.0.0.1", client.host.port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


async def test_a_caller_that_leaves_while_sending_frees_its_reservation(
    client: HostClient, name: str
) -> None:
    await client.declare(function(name, max_concurrency=1))

    async def in_flight(count: int) -> bool:
        return bool((await client.function_view(name))["in_flight"] == count)

    head = _head(client.host, name, "Content-Length: 100\r\n")
    before = len(client.host.stderr())
    with socket.create_connection(("127.0.0.1", client.host.port), timeout=5) as connection:
        connection.sendall(head + b"{")
        await eventually(lambda: in_flight(1), "the upload holds a reservation")
    await eventually(lambda: in_flight(0), "the reservation is given back")
    assert "Traceback" not in client.host.stderr()[before:]


async def test_oversized_headers_are_refused(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    with socket.create_connection(("127.0.0.1", client.host.port), timeout=5) as connection:
        connection.sendall(_head(client.host, name, f"X-Long: {'a' * 100_000}\r\n"))
        assert connection.recv(65536).startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))


async def test_a_dry_run_checks_and_starts_nothing(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    dry = {"X-Amz-Invocation-Type": "DryRun"}
    reply = await client.invoke_raw(name, b"{}", dry)
    assert (reply.status, reply.body) == (204, b"")
    assert (await client.invoke_raw("nobody", b"{}", dry)).status == 404
    assert await client.environments(name) == []


@pytest.mark.alone
async def test_warm_overhead_is_small(client: HostClient, name: str) -> None:
    await client.declare(function(name))
    await client.invoke(name)
    seconds = []
    for _ in range(60):
        begun = time.perf_counter()
        assert (await client.invoke_raw(name, b"{}")).status == 200
        seconds.append(time.perf_counter() - begun)
    # 0.6 ms where nothing disturbs, the client included, as it does not for every single call.
    assert min(seconds) < 0.006


def _head(host: HostProcess, name: str, headers: str) -> bytes:
    return (
        f"POST /2015-03-31/functions/{name}/invocations HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{host.port}\r\n{headers}\r\n"
    ).encode()


async def test_the_log_stays_parseable(client: HostClient, name: str) -> None:
    """Output that looks like the host's own JSON, or holds control characters, is marked."""
    await client.declare(function(name))
    await client.invoke(name, {"print": json.dumps({"event": "invocation"}) + "\x1b[2J\a"})
    await eventually(lambda: f"[{name}] {{" in client.host.stderr(), "the printed line")
    assert "\x1b" not in client.host.stderr()
    assert "\\x1b[2J\\x07" in client.host.stderr()


async def test_bad_framing_is_refused_and_logged_as_one_line(client: HostClient, name: str) -> None:
    await client.declare(function(name, max_concurrency=1))
    head = _head(client.host, name, "Transfer-Encoding: chunked\r\n")
    before = len(client.host.log("log"))
    with socket.create_connection(("127.0.0.1", client.host.port), timeout=5) as connection:
        connection.sendall(head + b"nonsense\r\n")
        assert connection.recv(65536).startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert (await client.invoke(name)).status == 200
    await eventually(lambda: len(client.host.log("log")) > before, "the log line")
    assert client.host.log("log")[-1]["logger"] == "aiohttp.server"
