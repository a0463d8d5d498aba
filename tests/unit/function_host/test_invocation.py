import json

import pytest

from workers.function_host.invocation import (
    Result,
    Status,
    exit_error,
    log_end,
    log_start,
    timeout_error,
)


def _result(
    duration_s: float = 0.0123, init_s: float | None = None, status: Status = Status.OK
) -> Result:
    return Result("id-1", status, b"{}", duration_s, init_s, b"")


@pytest.mark.parametrize(
    ("duration_s", "init_s", "status", "billed_ms"),
    [
        pytest.param(0.0123, None, Status.OK, 13, id="rounded up to a millisecond"),
        pytest.param(0.012, None, Status.OK, 12, id="a whole millisecond is not rounded up"),
        pytest.param(0.1 + 0.2, None, Status.OK, 300, id="float noise is not billed"),
        pytest.param(0.0, None, Status.OK, 0, id="nothing"),
        pytest.param(0.0004, 0.0004, Status.OK, 1, id="init and run are rounded together"),
        pytest.param(0.01, 0.2501, Status.TIMED_OUT, 261, id="timeouts are billed"),
        pytest.param(0.0, 0.25, Status.INIT_FAILED, 250, id="a failed init is billed"),
        pytest.param(1.0, 0.25, Status.ABORTED, 0, id="the host's own stop is free"),
        pytest.param(0.0, None, Status.NOT_STARTED, 0, id="no process, no bill"),
    ],
)
def test_billing(duration_s: float, init_s: float | None, status: Status, billed_ms: int) -> None:
    assert _result(duration_s, init_s, status).billed_ms == billed_ms


def test_the_report_line_of_a_cold_call_names_its_init() -> None:
    assert log_end(_result(init_s=0.25), 512, 40).decode() == (
        "END RequestId: id-1\n"
        "REPORT RequestId: id-1\tDuration: 12.30 ms\tBilled Duration: 263 ms\t"
        "Memory Size: 512 MB\tMax Memory Used: 40 MB\tInit Duration: 250.00 ms\n"
    )


def test_the_report_line_of_a_warm_call_does_not() -> None:
    assert b"Init" not in log_end(_result(), 512, 40)


def test_the_start_line() -> None:
    assert log_start("id-1") == b"START RequestId: id-1 Version: $LATEST\n"


@pytest.mark.parametrize(
    ("payload", "error_type", "message"),
    [
        (
            exit_error("r", 0),
            "Runtime.ExitError",
            "RequestId: r Error: Runtime exited without providing a reason",
        ),
        (
            exit_error("r", 5),
            "Runtime.ExitError",
            "RequestId: r Error: Runtime exited with error: exit status 5",
        ),
        (
            exit_error("r", -11),
            "Runtime.ExitError",
            "RequestId: r Error: Runtime exited with error: signal: segmentation fault",
        ),
        (
            exit_error("r", -63),
            "Runtime.ExitError",
            "RequestId: r Error: Runtime exited with error: signal: real-time signal 29",
        ),
        (
            timeout_error("r", "Task", 3),
            "Sandbox.Timedout",
            "RequestId: r Error: Task timed out after 3.00 seconds",
        ),
    ],
    ids=["exit 0", "exit 5", "segfault", "nameless signal", "timeout"],
)
def test_error_payloads(payload: bytes, error_type: str, message: str) -> None:
    found = json.loads(payload)
    assert found["errorType"] == error_type
    assert found["errorMessage"].lower() == message.lower()
