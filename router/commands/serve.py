"""The commands that serve: `serve`, and what each of its processes runs.

Decides only between one process and several. Exit codes as in `cli`.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
import uvloop

from router.app import Gateway, hostname
from router.assembly.runtime import new_parts
from router.backends.child_process import socket_folder
from router.commands.exits import fail, load_or_exit
from router.gateway.http.listener import use_all_descriptors
from router.member import Member
from router.processes.children import READY_LINE
from router.processes.lifetime import die_with_parent
from router.processes.parent import Launch, Parent, ProcessesFailedError
from router.settings.loader import Loaded
from router.telemetry.own_log import configure_logging

OnReady = Callable[[str, str], None]
_SWITCH_S = 0.0005


@click.command()
@click.option("--config", required=True, type=click.Path(path_type=Path), help="Settings file.")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least severe events that are logged.",
)
@click.option(
    "--log-format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="Lines for people, or JSON with the numbers of events.",
)
def serve(config: Path, log_level: str, log_format: str) -> None:
    """Run the gateway until SIGTERM or Ctrl-C, then finish what was accepted."""
    configure_logging(log_level, log_format)
    loaded = load_or_exit(config)

    def on_ready(data_url: str, admin_url: str) -> None:
        _tune_gc()
        model = loaded.settings.models[0].name
        click.echo(f"ready: inference {data_url}  admin {admin_url}  (stop with Ctrl-C)")
        click.echo(f"try:   curl {data_url}/v2/models/{model}")
        sys.stdout.flush()

    with socket_folder() as folder:  # of mode 0700
        if loaded.settings.server.processes == 1:
            _run(_serve(config, loaded, Path(folder), on_ready))
        else:
            launch = Launch(config, os.environ, log_level, log_format)
            _run(_serve_by_processes(launch, loaded, Path(folder), on_ready))


@click.command(hidden=True)
@click.option("--config", required=True, type=click.Path(path_type=Path))
@click.option("--log-level", required=True)
@click.option("--log-format", required=True)
@click.option("--member", required=True, help="What the parent tells, as JSON.")
def serve_process(config: Path, log_level: str, log_format: str, member: str) -> None:
    """Run one of the processes of `serve`, which starts them."""
    configure_logging(log_level, log_format)
    told = Member.decode(member)
    die_with_parent(told.parent)

    def on_ready(_data_url: str, _admin_url: str) -> None:
        _tune_gc()
        sys.stdout.buffer.write(READY_LINE)
        sys.stdout.buffer.flush()

    _run(_serve(config, load_or_exit(config), told.sockets, on_ready, told))


def _run(serving: Coroutine[Any, Any, None]) -> None:
    use_all_descriptors()
    # So long the loop waits for a thread that computes, as one does that reads the configuration.
    sys.setswitchinterval(_SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serving)
        except OSError as error:
            fail(f"cannot listen: {error}")
        except ProcessesFailedError as error:
            fail(str(error))


async def _serve(
    config: Path, loaded: Loaded, sockets: Path, on_ready: OnReady, member: Member | None = None
) -> None:
    instance_id = f"{hostname()}-{os.getpid():x}-{SystemRandom().getrandbits(24):06x}"
    gateway = Gateway(config, os.environ, loaded, new_parts(sockets), instance_id, member)
    await gateway.run(_stop_signal(), on_ready)


async def _serve_by_processes(
    launch: Launch, loaded: Loaded, folder: Path, on_ready: OnReady
) -> None:
    await Parent(launch, loaded, new_parts(folder)).run(_stop_signal(), on_ready)


def _stop_signal() -> asyncio.Event:
    """Set when the process is asked to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _tune_gc() -> None:
    # What has been built by now lives as long as the process: no need to look at it again. Not so
    # after a reload, when clients are there: what they leave in cycles would stay for ever.
    gc.collect()
    gc.freeze()
    # Requests leave few cycles behind: look for them less often than every 700 allocations, but
    # often enough that one look takes no longer than a millisecond.
    gc.set_threshold(10_000)
