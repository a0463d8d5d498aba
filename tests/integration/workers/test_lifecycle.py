"""The worker as a process: start, drain, and death with its parent."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.fakes.oip import infer_json, json_input
from tests.fakes.worker_process import WorkerProcess, command, running_worker, spawned

BOUND_S = 15.0


def infer(url: str, milliseconds: float) -> int:
    body = infer_json(json_input("x", "FP32", [1], [milliseconds]))
    request = urllib.request.Request(f"{url}/v2/models/slow/infer", data=body)
    with urllib.request.urlopen(request, timeout=BOUND_S) as response:
        assert json.load(response)["outputs"][0]["data"] == [milliseconds]
        return int(response.status)


def wait_for_in_flight(worker: WorkerProcess) -> None:
    """Return once the worker's gauge shows an accepted request."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{worker.url}/metrics", timeout=BOUND_S) as response:
            if b"worker_in_flight 1.0" in response.read():
                return
    pytest.fail("no request was accepted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_request_in_flight_and_exits_0(
    repository: Path, number: signal.Signals
) -> None:
    with running_worker(repository, "slow") as worker, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(infer, worker.url, 500)
        wait_for_in_flight(worker)
        worker.process.send_signal(number)
        assert answer.result(BOUND_S) == 200
        assert worker.process.wait(BOUND_S) == 0
        with pytest.raises(urllib.error.URLError):
            infer(worker.url, 1)


def test_idle_worker_exits_at_once(repository: Path) -> None:
    with running_worker(repository, "slow") as worker:
        assert worker.stop() == 0


def test_drain_is_bounded_even_while_a_run_goes_on(repository: Path) -> None:
    with (
        running_worker(repository, "slow", "--drain-s", "0.2") as worker,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(infer, worker.url, 30_000)
        wait_for_in_flight(worker)
        started = time.monotonic()
        assert worker.stop() == 1
        assert time.monotonic() - started < 5
        assert isinstance(answer.exception(BOUND_S), OSError)


def test_unix_socket_is_served(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    with running_worker(repository, "slow", "--listen", f"unix:{path}") as worker:
        assert worker.url == f"unix:{path}"
        curl = ["curl", "-s", "--unix-socket", str(path), "http://worker/v2/health/ready"]
        answer = subprocess.run(curl, capture_output=True, timeout=BOUND_S, check=True)
        assert json.loads(answer.stdout) == {"ready": True}


START_ERRORS: list[tuple[str, str, list[str], int, str]] = [
    ("broken model", "broken", [], 1, "model.onnx cannot be loaded"),
    ("unknown model", "nope", [], 1, "'nope' is not in"),
    ("unknown flag", "mlp", ["--nope"], 2, "--nope"),
    ("bad address", "mlp", ["--listen", "8080"], 2, "must be HOST:PORT"),
    ("no room", "mlp", ["--max-queue", "0"], 2, "must be at least 1"),
    ("endless drain", "mlp", ["--drain-s", "1e9"], 2, "between 0 and 3600"),
    ("address it cannot have", "mlp", ["--listen", "192.0.2.1:80"], 1, "error: "),
]


@pytest.mark.parametrize(
    ("model", "flags", "code", "message"),
    [r[1:] for r in START_ERRORS],
    ids=[r[0] for r in START_ERRORS],
)
def test_failed_start_names_its_reason(
    repository: Path, model: str, flags: list[str], code: int, message: str
) -> None:
    argv = command(repository, model, *flags)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# Starts the child with the parent's own stdout, so that its end of the pipe tells when it died.
PARENT = (
    "import subprocess, sys, time; child = subprocess.Popen(sys.argv[1:]); "
    "print(child.pid, flush=True); time.sleep(60)"
)
LOOKING = (
    "import sys, time; sys.platform = 'elsewhere'; from workers.lifetime import die_with_parent; "
    "die_with_parent(); print('ready x', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("kind", ["worker", "without help from the kernel"])
def test_child_dies_when_its_parent_is_killed(repository: Path, kind: str) -> None:
    child = command(repository, "slow") if kind == "worker" else [sys.executable, "-c", LOOKING]
    with spawned([sys.executable, "-c", PARENT, *child]) as parent, ThreadPoolExecutor(1) as pool:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline().startswith("ready ")
        parent.kill()
        # The read ends when no process holds the pipe any more: parent and child are gone.
        rest = pool.submit(parent.stdout.read)
        _, alive = wait([rest], BOUND_S)
        if alive:
            os.kill(pid, signal.SIGKILL)
        assert not alive, "the child outlived its parent"
        assert rest.result() == ""


def test_parent_that_died_before_the_child_asked_is_noticed() -> None:
    code = "from workers.lifetime import die_with_parent; die_with_parent(999_999_999)"
    done = subprocess.run([sys.executable, "-c", code], timeout=BOUND_S, check=False)
    assert done.returncode == -signal.SIGKILL


def test_worker_told_of_a_parent_that_is_gone_does_not_start(repository: Path) -> None:
    argv = [*command(repository, "slow"), "--exit-with-parent", "999999999"]
    done = subprocess.run(argv, capture_output=True, timeout=BOUND_S, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""
