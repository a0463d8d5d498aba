"""The wheel in an empty environment, without the repository: a first run as a user has it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from router import __version__
from tests.architecture.tables import ROOT

LOCK = ROOT / "deploy" / "requirements" / "serve.txt"
READY = re.compile(r"ready: inference (\S+)  admin (\S+)")
# pip fetches and unpacks a hundred megabytes, and much else may run beside it.
pytestmark = pytest.mark.timeout(900)

PORTS = {"ROUTER_LISTEN": "127.0.0.1:0", "ROUTER_ADMIN_LISTEN": "127.0.0.1:0"}


class Installed:
    """A virtual environment with the wheel, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.prefix = folder / "venv"
        self._bin = self.prefix / "bin"
        self._wheel = wheel
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        kept = {"PATH", "HOME", "HTTPS_PROXY", "NO_PROXY"}
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self._environment = {name: os.environ[name] for name in kept & os.environ.keys()} | pip

    def install(self, extras: str = "") -> None:
        self.run("pip", "install", "--quiet", "-c", str(LOCK), f"{self._wheel}{extras}", code=0)

    def run(self, program: str, *arguments: str, code: int) -> str:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder, env=self._environment | PORTS, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def lacks(self, module: str) -> bool:
        told = f"import importlib.util as u; print(u.find_spec({module!r}))"
        return self.run("python", "-c", told, code=0).strip() == "None"

    @contextmanager
    def serving(self, *command: str) -> Iterator[tuple[str, str]]:
        """The URLs of both ports, while it serves."""
        with subprocess.Popen(
            [self._bin / "hybrid-router", *command], cwd=self.folder,
            env=self._environment | PORTS, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            told = []
            try:
                for line in process.stdout:
                    told.append(line)
                    if (match := READY.match(line)) is not None:
                        break
                else:
                    pytest.fail("".join(told))
                yield match[1], match[2]
            finally:
                process.send_signal(signal.SIGTERM)
                process.stdout.read()
                assert process.wait(60) == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, sources / name)
    (sources / "man").mkdir()
    tools = Path(sys.executable).parent
    build = ("build", "--quiet", "--python", sys.executable, "--out-dir", str(folder / "dist"))
    pages = ("--target", "man", "hybrid-router")
    for command in ([str(tools / "click-man"), *pages], [str(tools / "uv"), *build]):
        done = subprocess.run(
            command, cwd=sources, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    assert __version__ in wheel.name
    return wheel


@pytest.fixture
def installed(tmp_path: Path, wheel: Path) -> Installed:
    made = Installed(tmp_path, wheel)
    made.install()
    return made


class Replica(BaseHTTPRequestHandler):
    """A model server of somebody else."""

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer({"model_name": "m", "outputs": []})

    def _answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def replica() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Replica) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_gateway_needs_no_inference_runtime_and_nothing_that_is_compiled(
    installed: Installed, replica: str
):
    assert __version__ in installed.run("hybrid-router", "--version", code=0)
    assert installed.lacks("onnxruntime")
    assert installed.lacks("awslambdaric")
    manual = installed.prefix / "share" / "man" / "man1"
    assert "SIGTERM" in (manual / "hybrid-router-serve.1").read_text()
    assert (manual / "hybrid-router-init.1").exists()
    made = ("--pool", "static", "--function", "none", "--model", "m")
    installed.run("hybrid-router", "init", *made, code=0)
    assert "valid" in installed.run("hybrid-router", "check", "router.yaml", code=0)
    file = installed.folder / "router.yaml"
    config = yaml.safe_load(file.read_text())
    config["server"] = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
    config["models"][0]["pool"]["urls"] = [replica]
    file.write_text(yaml.safe_dump(config))
    with installed.serving("serve", "--config", "router.yaml") as (url, admin):
        body = b'{"inputs": []}'
        headers = {"content-type": "application/json"}
        with urlopen(Request(f"{url}/v2/models/m/infer", body, headers), timeout=60) as answer:
            assert json.load(answer)["model_name"] == "m"
            assert answer.headers["x-router-backend"] == "pool"
        with urlopen(f"{admin}/", timeout=60) as page:
            assert b"<script" in page.read()


def test_what_needs_an_extra_names_it_and_the_demo_runs_with_it(installed: Installed):
    demo = ("demo", "--folder", "demo")
    assert 'pip install "hybrid-router[lambda]"' in installed.run("hybrid-router", *demo, code=1)
    installed.install("[lambda]")
    with installed.serving(*demo) as (url, admin):
        there = ("--url", url, "--admin", admin, "--models", "demo/models")
        told = installed.run("python", "-m", "workers.demo", *there, "--steady", "3", code=0)
    assert "magika" in told
    assert "requests were answered" in told
