"""The worker beside other servers of the same ONNX model, in interleaved rounds.

What is measured is one small inference from a client to onnxruntime and back; the reference is an
aiohttp handler that calls onnxruntime and does nothing else (`systems.bare_onnx_app`).
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.children import BenchmarkError, exchange, free_port
from tests.benchmarks.load import Bodies, load
from tests.benchmarks.processes import cpu_s, rss_bytes
from tests.benchmarks.results import Sample, ScenarioResult
from tests.benchmarks.rounds import Bench, interleaved
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.tools import ROOT, MissingToolError
from tests.fakes.models import write_mlp

NAME = "worker"
REFERENCE = "bare-onnx"
OURS = "worker"

_PATH = "/v2/models/mlp/infer"
_DATA = ROOT / "tests" / "data" / "model_servers"
_VALUES = np.linspace(-1, 1, 8, dtype=np.float32)
_INPUT = {"name": "x", "shape": [1, 8], "datatype": "FP32"}
_HEADER = "Inference-Header-Content-Length"


def _json() -> bytes:
    return json.dumps({"inputs": [{**_INPUT, "data": _VALUES.tolist()}]}).encode()


def _binary() -> tuple[bytes, str]:
    raw = _VALUES.tobytes()
    entry = {**_INPUT, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return head + raw, f"{_HEADER}: {len(head)}"


@dataclass(frozen=True, slots=True)
class Work:
    """What every server gets; `lines` are header lines that go with the body."""

    name: str
    title: str
    body: bytes
    content_type: str = "application/json"
    lines: tuple[str, ...] = ()
    path: str = _PATH
    connections: int = 32


WORKS = (
    Work("worker-json", "Worker: small JSON infer, 32 connections", _json()),
    Work(
        "worker-binary", "Worker: small binary infer, 32 connections", _binary()[0],
        "application/octet-stream", (_binary()[1],),
    ),
)  # fmt: skip


def run_workers(
    bench: Bench, rounds: int, seconds: float, missing: dict[str, str]
) -> Iterator[ScenarioResult]:
    """Measure all servers in each scenario; why one is not there goes into `missing`."""
    repository = bench.folder / "models"
    file = write_mlp(repository, "mlp")
    with ExitStack() as stack:
        live: dict[str, Running] = {}
        for name, start in SERVERS.items():
            bench.tell(f"starting {name}")
            folder = bench.folder / f"server-{name}"
            folder.mkdir()
            try:
                live[name] = stack.enter_context(start(Site(folder, free_port(), 0), bench, file))
            except MissingToolError as error:
                missing[name] = str(error)
        for work in WORKS:
            yield _measured(bench, work, live, rounds, seconds)


def _measured(
    bench: Bench, work: Work, live: Mapping[str, Running], rounds: int, seconds: float
) -> ScenarioResult:
    bodies = Bodies.write(bench.folder / f"{work.name}.body", [work.body])
    # MLServer answers binary requests with JSON: its row would be of another work.
    taking = {name: it for name, it in live.items() if not (work.lines and name == "mlserver")}

    def measured(name: str) -> Sample:
        return _measure(bench, work, taking[name], bodies, seconds)

    rows = interleaved(bench.tell, work.name, list(taking), measured, rounds)
    return ScenarioResult(work.name, work.title, rows, REFERENCE)


def _measure(bench: Bench, work: Work, it: Running, bodies: Bodies, seconds: float) -> Sample:
    before = cpu_s(it.pid)
    with load(bench.tools, it.port, work, bodies, seconds) as run:
        told = run.result()
    cpu = cpu_s(it.pid) - before
    if not told.requests or told.errors:
        raise BenchmarkError(f"{told.requests} answers, {told.errors} errors")
    return Sample(
        cpu_us=cpu / told.requests * 1e6,
        rps=told.requests / told.duration_s,
        p50_ms=told.p50_s * 1e3,
        p99_ms=told.p99_s * 1e3,
        p999_ms=told.p999_s * 1e3,
        rss_mb=rss_bytes(it.pid) / 1e6,
        core_percent=cpu / told.duration_s * 100,
        others_percent=0.0,
        requests=told.requests,
        errors=told.errors,
    )


# -- the servers ---------------------------------------------------------------------------------


@contextmanager
def _checked(argv: Sequence[str], site: Site, env: Mapping[str, str]) -> Iterator[Running]:
    with server(argv, site, env) as running:
        status, answer = exchange(site.port, "POST", _PATH, _json())
        if status != 200 or b'"FP32"' not in answer:
            raise BenchmarkError(f"wrong answer: {status} {answer[:200]!r}")
        yield running


@contextmanager
def _ours(site: Site, bench: Bench, file: Path) -> Iterator[Running]:
    del bench
    argv = [
        sys.executable, "-m", "workers.http_server", "--repository", str(file.parents[2]),
        "--model", "mlp", "--listen", f"127.0.0.1:{site.port}",
    ]  # fmt: skip
    with _checked(argv, site, {"PYTHONPATH": str(ROOT)}) as running:
        yield running


@contextmanager
def _bare(site: Site, bench: Bench, file: Path) -> Iterator[Running]:
    del bench
    module = "tests.benchmarks.systems.bare_onnx_app"
    argv = [sys.executable, "-m", module, str(site.port), str(file)]
    with _checked(argv, site, {"PYTHONPATH": str(ROOT)}) as running:
        yield running


@contextmanager
def _mlserver(site: Site, bench: Bench, file: Path) -> Iterator[Running]:
    programs = bench.tools.environment("mlserver", "onnxruntime")
    shutil.copy(_DATA / "onnx_runtime.py", site.folder)
    model = {"name": "mlp", "implementation": "onnx_runtime.Onnx"}
    (site.folder / "model-settings.json").write_text(json.dumps(model))
    ports = {"http_port": site.port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (site.folder / "settings.json").write_text(json.dumps(settings))
    argv = [str(programs / "mlserver"), "start", str(site.folder)]
    with _checked(argv, site, {"ONNX_FILE": str(file)}) as running:
        yield running


SERVERS = {REFERENCE: _bare, OURS: _ours, "mlserver": _mlserver}
