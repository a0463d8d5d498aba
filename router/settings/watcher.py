"""Notices that the configuration, or a file it includes, has other content than before.

Polls content, so that editors, rsync and ConfigMap symlink swaps all work. Never stops on an error,
never blocks the loop, and decides nothing about the new content: `on_change` does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from router.settings.sources import ReadFile, Sources, read_bounded, read_sources

Sleep = Callable[[float], Awaitable[object]]
OnChange = Callable[[], Awaitable[Sources]]
"""Reloads, and returns the sources read, good or bad: they are what is watched from then on."""

_log = logging.getLogger(__name__)


class ConfigWatcher:
    """Calls `on_change` once for each new content, after two polls in a row have seen it.

    Waiting for the second poll keeps half-written files, and a file that is away for a moment while
    it is replaced, from being loaded. `watched` is what the running configuration was loaded from,
    so a change between that load and the first poll is not missed.
    """

    def __init__(
        self,
        watched: Sources,
        interval_s: float,
        on_change: OnChange,
        *,
        sleep: Sleep = asyncio.sleep,
        read_file: ReadFile = read_bounded,
    ) -> None:
        self._watched = watched
        self._interval_s = interval_s
        self._on_change = on_change
        self._sleep = sleep
        self._read_file = read_file
        self._candidate: str | None = None

    async def run(self) -> None:
        """Polls until cancelled. The owner awaits this task at shutdown."""
        while True:
            await self._sleep(self._interval_s)
            await self.poll()

    async def poll(self) -> None:
        """Looks once; reports a change that the previous look has also seen."""
        try:
            seen = await asyncio.to_thread(read_sources, self._watched.files, self._read_file)
        except Exception:  # noqa: BLE001 - root of a background loop: nothing may end it
            _log.exception("cannot look at the configuration files")
            return
        if seen.content_hash == self._watched.content_hash:
            self._candidate = None
        elif seen.content_hash == self._candidate:
            self._candidate = None
            await self._report(seen)
        else:
            self._candidate = seen.content_hash

    async def _report(self, seen: Sources) -> None:
        # Kept if the callback fails: the same content would only fail again.
        self._watched = seen
        try:
            self._watched = await self._on_change()
        except Exception:  # noqa: BLE001 - root of a background loop: nothing may end it
            _log.exception("reloading the configuration failed")
