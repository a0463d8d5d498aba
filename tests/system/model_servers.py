"""Real model servers of others, each in an environment of its own below `build/`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.end_to_end.gateway import eventually
from tests.system.tools import REQUIREMENTS, TOOLS, run

DATA = Path(__file__).parents[1] / "data" / "model_servers"
_READY_WITHIN_S = 60.0


def environment(name: str) -> Path:
    """The programs of an environment with what `deploy/requirements/NAME.txt` pins."""
    folder = TOOLS / name
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        install = ("install", "--quiet", "--disable-pip-version-check", "-r")
        run(folder / "bin/pip", *install, REQUIREMENTS / f"{name}.txt", timeout_s=600)
        done.touch()
    return folder / "bin"


@contextmanager
def mlserver(folder: Path, port: int, other_ports: tuple[int, int]) -> Iterator[str]:
    """MLServer with the model `doubler`; gives its URL."""
    grpc, metrics = other_ports
    shutil.copy(DATA / "runtime.py", folder)
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "doubler", "implementation": "runtime.Doubler"})
    )
    ports = {"http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(
        json.dumps({"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports})
    )
    command = (environment("mlserver") / "mlserver", "start", folder)
    with _running(command, folder, port) as url:
        yield url


@contextmanager
def kserve(folder: Path, port: int) -> Iterator[str]:
    """KServe's ModelServer with the model `doubler`; gives its URL."""
    command = (environment("kserve") / "python", DATA / "kserve_server.py", str(port))
    with _running(command, folder, port) as url:
        yield url


@contextmanager
def _running(command: tuple[str | Path, ...], folder: Path, port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "server.log").read_text()
            return _answers(f"{url}/v2/models/doubler/ready")

        try:
            eventually(is_ready, f"{command[0]} is ready", _READY_WITHIN_S)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
