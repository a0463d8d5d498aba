"""Runs the function host: arguments, listener, signals, end.

The composition root: the only place that reads argv, the host's environment and the real clocks.
Prints `ready URL` once it listens; exits 0 after SIGTERM or SIGINT, 1 where it cannot
listen, 2 on wrong arguments or configuration.
"""

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from workers.function_host.console import Console, ConsoleHandler
from workers.function_host.environment import Services
from workers.function_host.host import Host
from workers.function_host.host_api import HostApi, read_declaration
from workers.function_host.invoke_api import InvokeApi
from workers.function_host.settings import FunctionSpec, SettingsError
from workers.lifetime import die_with_parent

Listen = str | tuple[str, int]
"""The path of a Unix socket, or a loopback address and port."""

_MAX_DRAIN_S = 900.0
_MAX_PORT = 65535
_LAST_BYTES_S = 2.0  # for responses already made when the drain ends


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop; return the exit code."""
    arguments = _arguments(argv)
    if arguments.exit_with_parent is not None:
        die_with_parent(arguments.exit_with_parent or None)
    try:
        specs = read_declaration(arguments.config.read_bytes()) if arguments.config else []
    except (OSError, SettingsError) as error:
        errors = error.errors if isinstance(error, SettingsError) else [str(error)]
        sys.stderr.writelines(f"{arguments.config}: {line}\n" for line in errors)
        return 2
    console = Console()
    logging.getLogger().addHandler(ConsoleHandler(console))
    try:
        return asyncio.run(_serve(arguments.listen, specs, arguments.drain_s, console))
    finally:
        console.close()


async def _serve(
    listen: Listen, specs: list[FunctionSpec], drain_s: float, console: Console
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    services = Services(
        clock=loop.time,
        epoch=time.time,  # noqa: TID251  # composition root; deadlines told to handlers are wall-clock
        console=console,
        path=os.environ.get("PATH", os.defpath),
    )
    host = Host(services)
    runner = web.AppRunner(
        _application(host), access_log=None, shutdown_timeout=_LAST_BYTES_S, auto_decompress=False
    )
    await runner.setup()
    try:
        try:
            url = await _listen(runner, listen)
        except OSError as error:
            console.line(f"cannot listen on {_shown(listen)}: {error}")
            return 1
        host.replace(specs)
        print(f"ready {url}", flush=True)  # noqa: T201  # the readiness contract
        await stop.wait()
        await host.drain(drain_s)
        return 0
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, listen: Listen) -> str:
    """Start to listen; returns the URL. Raises OSError."""
    if isinstance(listen, str):
        before = os.umask(0o177)  # whoever can open it can have any code run
        try:
            await web.UnixSite(runner, listen).start()
        finally:
            os.umask(before)
        return f"unix:{listen}"
    await web.TCPSite(runner, *listen).start()
    address, port = runner.addresses[0][:2]
    return f"http://{_shown((address, port))}"


def _shown(listen: Listen) -> str:
    if isinstance(listen, str):
        return listen
    address, port = listen
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _application(host: Host) -> web.Application:
    application = web.Application()
    application.add_routes([*InvokeApi(host).routes(), *HostApi(host).routes()])
    return application


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workers.function_host",
        description="A scale-to-zero function platform for this machine, with Lambda's interfaces.",
    )
    parser.add_argument(
        "--listen",
        type=_address,
        required=True,
        metavar="HOST:PORT",
        help="where to serve: a Unix socket (unix:/PATH), which only this user can reach, or a "
        "loopback address, whose every user can then run code as this one; port 0 takes a free one",
    )
    parser.add_argument("--config", type=Path, help="JSON file with the initial functions")
    parser.add_argument(
        "--drain-s",
        type=_drain_seconds,
        default=10.0,
        help="seconds that running invocations get when the host stops (default 10)",
    )
    parser.add_argument(
        "--exit-with-parent",
        nargs="?",
        type=int,
        const=0,
        metavar="PID",
        help="die when the parent process does; give its PID, or a parent that dies while this "
        "process starts goes unnoticed",
    )
    return parser.parse_args(argv)


def _address(text: str) -> Listen:
    return _socket_path(text) if text.startswith("unix:") else _loopback_address(text)


def _loopback_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
        number = int(port)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT with an IP address") from None
    if not is_loopback:
        # Whoever reaches the host can have it run any code.
        raise argparse.ArgumentTypeError(f"{host} is not a loopback address")
    if not 0 <= number <= _MAX_PORT:
        raise argparse.ArgumentTypeError(f"port {number}, must be in 0..{_MAX_PORT}")
    return host, number


def _socket_path(text: str) -> str:
    path = text.removeprefix("unix:")
    if not path.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not unix:/PATH")
    return path


def _drain_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_DRAIN_S:
        raise argparse.ArgumentTypeError(f"{text!r}, must be in 0..{_MAX_DRAIN_S:g}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
