"""One credential kept fresh in the background, published as a snapshot that requests read.

Decides when to fetch again: ahead of expiry, after a refusal, with growing pauses while fetching
fails. Never fetches on behalf of a request, and never logs or shows what it holds.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from router.domain.clock import Clock, Sleep
from router.domain.errors import PlatformRefusedError

_log = logging.getLogger(__name__)

_FETCH_TIMEOUT_S = 30.0
_FIRST_PAUSE_S = 0.5
_MAX_PAUSE_S = 60.0
_AHEAD_S = 300.0
_SHORTEST_PAUSE_S = 0.1

T = TypeVar("T")


class CredentialError(Exception):
    """A credential could not be fetched. The message is logged, so it must hold no secret."""


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """What was fetched; `expires_at` is wall-clock seconds, `look_again_s` when to ask anew."""

    value: T
    expires_at: float | None = None
    look_again_s: float = 60.0


Fetch = Callable[[], Awaitable[Fetched[T]]]


class Refresher(Generic[T]):
    """Holds one credential. `run` is the loop that fetches it; the gateway owns that loop.

    `was_tried` is set once it was fetched, or could not be, for the first time.
    """

    def __init__(
        self, what: str, fetch: Fetch[T], wall_clock: Clock, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.what = what
        self.was_tried = asyncio.Event()
        self._fetch = fetch
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._fetched: Fetched[T] | None = None
        self._failure = "it has not been fetched yet"
        self._wake = asyncio.Event()

    def current(self) -> T:
        """The credential. Raises PlatformRefusedError if there is none that is valid."""
        fetched = self._fetched
        if fetched is None or self._is_expired(fetched):
            raise PlatformRefusedError("the gateway has no valid credentials for the platform")
        return fetched.value

    def refused(self) -> None:
        """The platform did not accept the credential: fetch it anew, soon."""
        self._wake.set()

    async def run(self) -> None:
        """Fetch until cancelled."""
        failures = 0
        while True:
            succeeded = await self._fetch_once()
            self.was_tried.set()
            if succeeded:
                failures, pause_s = 0, self._until_refresh_s()
            else:
                pause_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2**failures)
                failures = min(failures + 1, 16)
            await self._rest(pause_s, may_be_woken=failures == 0)

    async def _fetch_once(self) -> bool:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S):
                self._fetched = await self._fetch()
        except (CredentialError, TimeoutError) as error:
            self._report(str(error) or "it took too long")
            return False
        if self._failure:
            _log.info("credentials: got %s", self.what)
        self._failure = ""
        return True

    def _report(self, failure: str) -> None:
        # The same failure again and again is one line in the log.
        if failure != self._failure:
            _log.warning("credentials: cannot get %s: %s", self.what, failure)
        self._failure = failure

    def _until_refresh_s(self) -> float:
        fetched = self._fetched
        if fetched is None or fetched.expires_at is None:
            return fetched.look_again_s if fetched is not None else _FIRST_PAUSE_S
        left_s = fetched.expires_at - self._wall_clock()
        # A server may hand out the same credential until shortly before it expires: then the
        # pauses get shorter as the end comes near.
        pause_s = left_s - _AHEAD_S if left_s > 4 * _AHEAD_S else 0.75 * left_s
        return max(_SHORTEST_PAUSE_S, pause_s)

    async def _rest(self, pause_s: float, *, may_be_woken: bool) -> None:
        """Sleep; a refusal ends it, but never sooner than one first pause: no stampede."""
        least_s = min(pause_s, _FIRST_PAUSE_S)
        await self._sleep(least_s)
        waits = [asyncio.ensure_future(self._sleep(pause_s - least_s))]
        if may_be_woken:
            waits.append(asyncio.create_task(self._wait_for_refusal()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            self._wake.clear()

    async def _wait_for_refusal(self) -> None:
        await self._wake.wait()

    def _is_expired(self, fetched: Fetched[T]) -> bool:
        return fetched.expires_at is not None and self._wall_clock() >= fetched.expires_at
