"""What an invocation is, how it can end, and what its caller, bill and log say about it.

Pure values: it renders Lambda's error payloads and REPORT line and computes billed milliseconds,
but measures nothing and sends nothing.
"""

import asyncio
import json
import math
import signal
from dataclasses import dataclass
from enum import StrEnum

MAX_PAYLOAD_BYTES = 6_291_556  # Lambda's limit for synchronous events and for responses
LOG_TAIL_BYTES = 4096


class Status(StrEnum):
    """How an invocation ended."""

    OK = "ok"
    FUNCTION_ERROR = "function_error"  # the handler raised; its environment lives on
    RESPONSE_TOO_LARGE = "response_too_large"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    INIT_FAILED = "init_failed"
    INIT_TIMED_OUT = "init_timed_out"
    NOT_STARTED = "not_started"  # the machine refused the process
    ABORTED = "aborted"  # the host stopped first


PLATFORM_FAILURES = frozenset({Status.NOT_STARTED, Status.ABORTED})  # not the function's doing


@dataclass(frozen=True, slots=True)
class Ending:
    """How the sandbox's part went: a status and the payload for the caller."""

    status: Status
    payload: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """One finished invocation. Times in seconds; `init_s` is None for a warm one."""

    request_id: str
    status: Status
    payload: bytes
    duration_s: float
    init_s: float | None
    log_tail: bytes

    @property
    def billed_ms(self) -> int:
        """Run and init time, rounded up together; failures of the platform cost nothing."""
        if self.status in PLATFORM_FAILURES:
            return 0
        # Rounded first: 12.000000001 ms is float noise, not a thirteenth millisecond.
        return math.ceil(round((self.duration_s + (self.init_s or 0.0)) * 1000, 6))


@dataclass(frozen=True, slots=True)
class Invocation:
    """An event on its way to a handler; `done` gets its Result exactly once."""

    request_id: str
    event: bytes
    done: "asyncio.Future[Result]"


def exit_error(request_id: str, returncode: int) -> bytes:
    """Payload for a runtime that exited (negative return code: the signal's number)."""
    if returncode == 0:
        return _error(
            "Runtime.ExitError",
            f"RequestId: {request_id} Error: Runtime exited without providing a reason",
        )
    reason = f"exit status {returncode}"
    if returncode < 0:
        reason = f"signal: {_signal_name(-returncode)}"
    return _error(
        "Runtime.ExitError", f"RequestId: {request_id} Error: Runtime exited with error: {reason}"
    )


def timeout_error(request_id: str, what: str, limit_s: float) -> bytes:
    """Payload for a task or an init that was killed at its limit."""
    return _error(
        "Sandbox.Timedout",
        f"RequestId: {request_id} Error: {what} timed out after {limit_s:.2f} seconds",
    )


def too_large_error() -> bytes:
    """Payload for a response over the limit."""
    return _error(
        "Function.ResponseSizeTooLarge",
        f"Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes).",
    )


def log_start(request_id: str) -> bytes:
    """First line of an invocation's log."""
    return f"START RequestId: {request_id} Version: $LATEST\n".encode()


def log_end(result: Result, memory_mb: int, used_mb: int) -> bytes:
    """Last lines of an invocation's log: END and Lambda's REPORT."""
    fields = [
        f"REPORT RequestId: {result.request_id}",
        f"Duration: {result.duration_s * 1000:.2f} ms",
        f"Billed Duration: {result.billed_ms} ms",
        f"Memory Size: {memory_mb} MB",
        f"Max Memory Used: {used_mb} MB",
    ]
    if result.init_s is not None:
        fields.append(f"Init Duration: {result.init_s * 1000:.2f} ms")
    report = "\t".join(fields)
    return f"END RequestId: {result.request_id}\n{report}\n".encode()


def _error(error_type: str, message: str) -> bytes:
    return json.dumps({"errorMessage": message, "errorType": error_type}).encode()


def _signal_name(number: int) -> str:
    return (signal.strsignal(number) or str(number)).lower()
