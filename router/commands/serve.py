"""The commands that serve: `serve`, and what each of its processes runs.

Decides only between one process and several. Exit codes as in `cli`.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
import uvloop

from router.app import Gateway, hostname
from router.assembly.runtime import new_parts
from router.backends.child_process import socket_folder
from router.background import Background
from router.commands.exits import fail, load_or_exit
from router.commands.service_manager import ServiceManager, wanted_by
from router.gateway.http.listener import CannotListenError, use_all_descriptors
from router.member import Member
from router.processes.children import READY_LINE
from router.processes.lifetime import die_with_parent
from router.processes.parent import Launch, Parent, ProcessesFailedError
from router.settings.document import ScalarNode
from router.settings.loader import ConfigError, Loaded
from router.telemetry.own_log import configure_logging

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
    serve_file(config, log_level, log_format)


def serve_file(config: Path, log_level: str = "info", log_format: str = "text") -> None:
    """As `serve`, for other commands: returns when the gateway has drained."""
    configure_logging(log_level, log_format)
    loaded = load_or_exit(config)
    with ServiceManager(wanted_by(os.environ, os.getpid())) as manager, socket_folder() as folder:
        serving = _Serving(config, loaded, manager, Path(folder))  # a folder of mode 0700
        try:
            _run(serving.run(log_level, log_format))
        except CannotListenError as error:
            fail(f"cannot listen: {error}\n{_where_written(loaded, error.key)}")
        except OSError as error:
            fail(f"cannot serve: {error}")


def _where_written(loaded: Loaded, key: tuple[str, str]) -> str:
    """Where the address of a port can be changed; as it is written, it may name a variable."""
    name, document = ".".join(key), loaded.document
    node = document.node(key)
    if not isinstance(node, ScalarNode):
        return f"set {name} in {document.file} to another address"
    return f"change {name} ({document.file}:{document.line(key)}), which is {node.text}"


class _Serving:
    """One process or several, under whoever started them."""

    def __init__(self, config: Path, loaded: Loaded, manager: ServiceManager, folder: Path) -> None:
        self._config = config
        self._loaded = loaded
        self._manager = manager
        self._folder = folder

    async def run(self, log_level: str, log_format: str) -> None:
        """Serve until told to stop. Raises CannotListenError and ProcessesFailedError."""
        if self._loaded.settings.server.processes == 1:
            served: Gateway | Parent = _gateway(self._config, self._loaded, self._folder)
        else:
            launch = Launch(self._config, os.environ, log_level, log_format)
            served = Parent(launch, self._loaded, new_parts(self._folder))
        stop = _stop_signal()
        beside = Background()
        if self._manager.is_there:
            beside.start("watchdog", self._manager.keep_alive)
            beside.start("stopping", partial(self._say_when_stopping, stop))
            beside.start("reloading", partial(self._reload_when_asked, served))
        try:
            await served.run(stop, self._on_ready)
        finally:
            await beside.stop_all()

    def _on_ready(self, data_url: str, admin_url: str) -> None:
        _tune_gc()
        model = self._loaded.settings.models[0].name
        click.echo(f"ready: inference {data_url}  admin {admin_url}  (stop with Ctrl-C)")
        click.echo(f"try:   curl {data_url}/v2/models/{model}")
        sys.stdout.flush()
        self._manager.ready(f"serving {data_url}, admin port {admin_url}")

    async def _say_when_stopping(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._manager.stopping()

    async def _reload_when_asked(self, served: Gateway | Parent) -> None:
        """Reload on SIGHUP. Without a manager nobody asks: a closed terminal's means to end."""
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
        while True:
            await asked.wait()
            asked.clear()
            self._manager.reloading()
            try:
                await served.reload()
            except ConfigError:  # the log has said it line by line
                self._manager.ready("the configuration has mistakes: the one before is in force")
            else:
                self._manager.ready("the configuration was read again")


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

    loaded = load_or_exit(config)

    async def serving() -> None:
        await _gateway(config, loaded, told.sockets, told).run(_stop_signal(), on_ready)

    try:
        _run(serving())
    except OSError as error:
        fail(f"cannot serve: {error}")


def _run(serving: Coroutine[Any, Any, None]) -> None:
    use_all_descriptors()
    # So long the loop waits for a thread that computes, as one does that reads the configuration.
    sys.setswitchinterval(_SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serving)
        except ProcessesFailedError as error:
            fail(str(error))


def _gateway(config: Path, loaded: Loaded, sockets: Path, member: Member | None = None) -> Gateway:
    instance_id = f"{hostname()}-{os.getpid():x}-{SystemRandom().getrandbits(24):06x}"
    return Gateway(config, os.environ, loaded, new_parts(sockets), instance_id, member)


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
