"""A Lambda handler that does what its event says, for tests of the function host."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

_GATE_S = 20.0
_counter = {"invocations": 0}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run the event's steps in order; answer with who ran them."""
    _counter["invocations"] += 1
    answer: dict[str, Any] = {
        "pid": os.getpid(),
        "count": _counter["invocations"],
        "request_id": context.aws_request_id,
        "remaining_ms": context.get_remaining_time_in_millis(),
        "arn": context.invoked_function_arn,
    }
    for step in event.get("steps", []):
        for name, argument in step.items():
            answer[name] = _STEPS[name](argument)
    return answer


def _touch(path: str) -> None:
    Path(path).write_text(str(os.getpid()))


def _wait_for(path: str) -> None:
    end = time.monotonic() + _GATE_S
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.005)


def _raise(message: str) -> None:
    raise ValueError(message)


def _print_lines(count: int) -> None:
    sys.stdout.write("".join(f"line {i} {'x' * 50}\n" for i in range(count)))


def _ignore_sigterm(_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _stop_polling(_: object) -> None:
    LambdaRuntimeClient.wait_next_invocation = lambda _self: time.sleep(300)


def _spawn_child(_: object) -> int:
    return subprocess.Popen(["/bin/sleep", "60"]).pid


def _runtime_api(call: list[str]) -> int:
    """Call this sandbox's own Runtime API; answer with the status."""
    method, path = call
    address, _, secret = os.environ["AWS_LAMBDA_RUNTIME_API"].partition("/")
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request(method, f"/{secret}{path}", body=b"{}" if method == "POST" else None)
    return connection.getresponse().status


_STEPS: dict[str, Callable[[Any], Any]] = {
    "echo": lambda value: value,
    "touch": _touch,
    "wait_for": _wait_for,
    "raise": _raise,
    "exit": os._exit,
    "kill_self": lambda number: os.kill(os.getpid(), number),
    "repeat_x": lambda count: "x" * count,
    "print_lines": _print_lines,
    "print": lambda text: sys.stdout.write(text + "\n"),
    "variables": lambda _: dict(os.environ),
    "cwd": lambda _: str(Path.cwd()),
    "ignore_sigterm": _ignore_sigterm,
    "stop_polling": _stop_polling,
    "spawn_child": _spawn_child,
    "runtime_api": _runtime_api,
}
