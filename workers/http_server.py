"""The worker process: flags, listener, signals. `python -m workers.http_server --help`.

Decides when the process is ready and when it ends. What it answers is `http_front`.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from workers.http_connection import Connection
from workers.http_front import FrontLimits, HttpFront
from workers.lifetime import die_with_parent
from workers.metrics import WorkerMetrics
from workers.protocol import WorkerError
from workers.service import Catalog

_log = logging.getLogger(__name__)

MAX_DRAIN_S = 3600.0
MAX_PORT = 65535
# Once drained there is nothing to wait for but connections that are idle.
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line."""

    repository: Path
    models: tuple[str, ...]
    version: str | None
    memory: int
    listen: str
    threads: int | None
    runs: int | None
    max_queue: int
    max_body: int
    drain_s: float
    exit_with_parent: int | None


def parse_flags(argv: Sequence[str] | None) -> Flags:
    """The flags; exits with code 2 where they are invalid."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.http_server", description="Serve ONNX models over HTTP (OIP v2)."
    )
    add = parser.add_argument
    add("--repository", type=Path, required=True, help="folder with NAME/VERSION/model.onnx")
    add(
        "--model",
        action="append",
        dest="models",
        default=[],
        help="a model to serve, loaded at the start if it is the only one; repeat it for several, "
        "leave it out for the whole repository, which are loaded when they are asked for",
    )
    add("--version", help="what requests without a version get (default: the highest)")
    add(
        "--memory",
        type=_positive,
        default=0,
        help="bytes of files of the models in memory; beyond, those not used for longest go",
    )
    add("--listen", default="127.0.0.1:0", type=_address, help="HOST:PORT (0: any) or unix:/PATH")
    add("--threads", type=_positive, help="CPU threads of one run (default: model.yaml, else 1)")
    add("--runs", type=_positive, help="runs at once (default: the cores, divided by the threads)")
    add("--max-queue", type=_positive, default=256, help="requests that may wait (default 256)")
    add("--max-body", type=_positive, default=64 * 1024 * 1024, help="bytes (default 64 MiB)")
    add("--drain-s", type=_seconds, default=30.0, help="longest drain after SIGTERM (default 30)")
    add(
        "--exit-with-parent",
        nargs="?",
        type=int,
        const=0,
        metavar="PID",
        help="die when the parent process does; give its PID, or a parent that dies while this "
        "process starts goes unnoticed",
    )
    flags = vars(parser.parse_args(argv))
    flags["models"] = tuple(flags["models"])
    if flags["version"] is not None and len(flags["models"]) != 1:
        parser.error("--version needs one --model")
    return Flags(**flags)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}, must be at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_DRAIN_S:
        raise argparse.ArgumentTypeError(f"{text}, must be between 0 and {MAX_DRAIN_S:g}")
    return value


def _address(text: str) -> str:
    if text.startswith("unix:/"):
        return text
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text}, must be HOST:PORT or unix:/PATH")
    return text


def load_catalog(flags: Flags) -> Catalog:
    """The catalog, with its model loaded and warmed if it is one; raises WorkerError."""
    catalog = Catalog(
        flags.repository,
        flags.models or None,
        flags.threads,
        default_version=flags.version,
        memory_bytes=flags.memory,
    )
    if len(flags.models) == 1:
        catalog.load(flags.models[0])
    return catalog


def concurrent_runs(threads_per_run: int) -> int:
    """How many runs the cores carry at once; more would only make each of them slower."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, cores // threads_per_run)


async def serve(flags: Flags, catalog: Catalog) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; False if requests had to be cut off."""
    threads = max((model.threads for model in catalog.loaded_models()), default=flags.threads or 1)
    runs = flags.runs or concurrent_runs(threads)
    limits = FrontLimits(flags.max_queue, flags.max_body, runs)
    front = HttpFront(catalog, limits, WorkerMetrics(CollectorRegistry()), time.monotonic)  # noqa: TID251 - composition root
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = server_runner(front)
    await runner.setup()
    try:
        url = await _listen(runner, flags.listen)
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()
        _tune_gc()
        await stop.wait()
        return await front.drain(flags.drain_s)
    finally:
        await runner.cleanup()
        await front.close()


class _Server(web.Server):
    """aiohttp's server, making our connections."""

    def __init__(self, front: HttpFront, **options: Any) -> None:  # noqa: ANN401  aiohttp's
        super().__init__(front.answer, **options)
        self._front = front

    def __call__(self) -> Connection:
        return Connection(self, self._front.answer_at_once)


def server_runner(front: HttpFront) -> web.ServerRunner:
    """The front behind aiohttp's HTTP server, with our connection limits."""
    # With cancellation, a client that goes away leaves the queue.
    server = _Server(front, handler_cancellation=True)
    return web.ServerRunner(server, handle_signals=False, shutdown_timeout=_CLOSE_S)


def _tune_gc() -> None:
    # The model lives as long as the process, and requests leave few cycles behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


async def _listen(runner: web.ServerRunner, address: str) -> str:
    if address.startswith("unix:"):
        await web.UnixSite(runner, address.removeprefix("unix:")).start()
        return address
    host, _, port = address.rpartition(":")
    await web.TCPSite(runner, host.strip("[]"), int(port), backlog=1024).start()
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"http://{shown}:{bound[1]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the worker; 0 after a complete drain, 1 if it could not start or cut requests off."""
    flags = parse_flags(argv)
    if flags.exit_with_parent is not None:
        die_with_parent(flags.exit_with_parent or None)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        catalog = load_catalog(flags)
        # Not on uvloop: at full load some connections waited long for their turn there (figures in
        # tests/benchmarks/RESULTS.md), for at most a fifth more requests.
        drained = asyncio.run(serve(flags, catalog))
    except (WorkerError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0 if drained else 1


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # A run that was cut off keeps its thread, and an ordinary exit would wait for it.
    os._exit(code)
