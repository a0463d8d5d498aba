"""A gateway as a user runs it: a process with a settings file, seen only through its ports."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

READY_S = 40.0
_READY = re.compile(r"ready: inference (\S+)  admin (\S+)")


@dataclass
class GatewayProcess:
    """`hybrid-router serve` on free ports, with its files in a folder of its own."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    descriptors: int | None = None
    process: subprocess.Popen[str] | None = None
    url: str = ""
    admin: str = ""

    @property
    def config_file(self) -> Path:
        return self.folder / "router.yaml"

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def start(self) -> "GatewayProcess":
        self.folder.mkdir(parents=True, exist_ok=True)
        server = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain_timeout": "30s"}
        server["access_log"] = "access.log"
        self.config = {**self.config, "server": {**server, **self.config.get("server", {})}}
        self.write_config()
        with (self.folder / "gateway.log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    *self._limited,
                    sys.executable,
                    "-m",
                    "router",
                    "serve",
                    "--config",
                    str(self.config_file),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = _READY.match(line)
        assert match is not None, f"no readiness line but {line!r}; log:\n{self.log}"
        self.url, self.admin = match[1], match[2]
        return self

    @property
    def _limited(self) -> list[str]:
        """What a command begins with that may not have more open files than `descriptors`."""
        if self.descriptors is None:
            return []
        return ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(self.descriptors)]

    def write_config(self) -> None:
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        """The pool's worker processes."""
        return [child for child in self.children() if runs(child, "workers.http_server")]

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = 60.0) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def ensure_gone(self) -> None:
        """End whatever is left, for the sake of the next test."""
        if self.process is None or self.process.returncode is not None:
            return
        for process in [*self.children(), psutil.Process(self.process.pid)]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self.wait()

    def access_log(self) -> list[dict[str, Any]]:
        """The lines written so far."""
        path = self.folder / "access.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def get(self, path: str) -> dict[str, Any]:
        """A JSON document of the admin port."""
        async with aiohttp.ClientSession() as session, session.get(self.admin + path) as response:
            document: dict[str, Any] = await response.json()
            return document

    async def status(self, model: str) -> dict[str, Any]:
        """One model's part of the status."""
        models = (await self.get("/v1/status"))["models"]
        return next(found for found in models if found["name"] == model)

    async def metrics(self) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.admin + "/metrics") as response,
        ):
            return await response.text()


def runs(process: psutil.Process, module: str) -> bool:
    """Whether the process runs that Python module; one that has just ended does not."""
    try:
        return module in process.cmdline()
    except psutil.NoSuchProcess:  # includes zombies
        return False


def gone(processes: list[psutil.Process], timeout_s: float = 30.0) -> list[psutil.Process]:
    """Wait for processes to end; returns those that did not."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return list(alive)


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait for a condition that another process brings about."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def running(folder: Path, config: dict[str, Any], **environment: str) -> Iterator[GatewayProcess]:
    """For fixtures: a started gateway that is gone afterwards."""
    gateway = GatewayProcess(folder, config, environment)
    try:
        yield gateway.start()
    finally:
        gateway.ensure_gone()
