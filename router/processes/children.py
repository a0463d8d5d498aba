"""One gateway process as its parent keeps it: started, waited for, started again when it ends.

Decides when to try again. Knows nothing of requests; how processes are asked is in `fleet`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from router.backends.child_process import end, kill
from router.domain.clock import Clock
from router.domain.events import EventKind, told

_log = logging.getLogger(__name__)

READY_LINE = b"ready\n"
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_GOOD_AFTER_S = 60.0
"""A process that has lived so long has earned a fresh start of the pauses."""
_HUNG_AFTER_MISSES = 3
"""One that a stop of the whole machine has delayed answers the next question, or the one after."""


@dataclass(slots=True)
class Backoff:
    """Growing pauses between starts that fail soon."""

    pause_s: float = _FIRST_PAUSE_S

    def after(self, lived_s: float) -> float:
        """How long to wait after a process that lived so long."""
        if lived_s >= _GOOD_AFTER_S:
            self.pause_s = _FIRST_PAUSE_S
        pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, _LONGEST_PAUSE_S)
        return pause_s


class Child:
    """The process with one number. `on_ready` and `on_end` must not block."""

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        clock: Clock,
        on_ready: Callable[["Child"], None],
        on_end: Callable[["Child"], None],
    ) -> None:
        self.number = number
        self.restarts = 0
        self.is_ready = asyncio.Event()
        self._command = tuple(command)
        self._clock = clock
        self._on_ready = on_ready
        self._on_end = on_end
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._misses = 0

    @property
    def answers(self) -> bool:
        """Whether it is ready, and has answered when it was last asked."""
        return self.is_ready.is_set() and not self._misses

    def heard(self, *, has_answered: bool) -> None:
        """Note whether it answered a heartbeat. One that never does is killed and started anew."""
        if not self.is_ready.is_set():  # it has ended meanwhile
            return
        self._misses = 0 if has_answered else self._misses + 1
        if self._misses == 1:
            facts = told(EventKind.PROCESS, process=self.number)
            _log.warning("gateway process %d does not answer", self.number, extra=facts)
        if self._misses == _HUNG_AFTER_MISSES:
            facts = told(EventKind.PROCESS, process=self.number)
            _log.error("gateway process %d hangs and is killed", self.number, extra=facts)
            kill(self._process)

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def run(self) -> None:
        """Keep it running until it is stopped."""
        backoff = Backoff()
        while not self._stopping.is_set():
            started_at = self._clock()
            status = await self._live()
            if self._stopping.is_set():
                return
            pause_s = backoff.after(self._clock() - started_at)
            _log.error(
                "gateway process %d ended with status %s and is started again in %.1f s",
                self.number, status, pause_s,
                extra=told(EventKind.PROCESS, process=self.number, restarts=self.restarts),
            )  # fmt: skip
            self.restarts += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    async def stop(self, patience_s: float) -> None:
        """Let it drain; kill it if that takes longer than `patience_s`."""
        self._stopping.set()
        await end(self._process, patience_s)

    async def _live(self) -> int | str:
        """One life: from its start to its end."""
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                # A Ctrl-C in the terminal is for the parent, which then drains its children.
                start_new_session=True,
            )
        except OSError as error:
            return f"{error.strerror}, before it began"
        try:
            if self._stopping.is_set():  # asked to while it was being started
                return "asked to stop"
            assert process.stdout is not None  # noqa: S101
            with suppress(ValueError):  # a line without an end
                if await process.stdout.readline() == READY_LINE:
                    self._misses = 0
                    self.is_ready.set()
                    self._on_ready(self)
            return await process.wait()
        finally:
            await end(process, 0.0)
            was_ready = self.is_ready.is_set()
            self.is_ready.clear()
            if was_ready:
                self._on_end(self)
