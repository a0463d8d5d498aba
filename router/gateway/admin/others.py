"""The traffic and the bill of all gateways that share a Redis: told and heard in the background.

Nothing waits for Redis: whoever asks gets the sum of what was heard last. A gateway that is gone is
in it no longer than the shared state's staleness and one exchange.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from router import __version__
from router.domain.clock import Clock, Sleep
from router.gateway.admin.status import StatusSources, status, words_of
from router.gateway.admin.summary import (
    MAX_BYTES,
    Teller,
    Word,
    WordError,
    encode,
    heard,
    summed_tenants,
)
from router.page.feed import tenant_tables
from router.signals.notes import Notes
from router.telemetry.metrics import Metrics
from router.turns import Steps, in_turns

_log = logging.getLogger(__name__)

EVERY_S = 3.0
_EXPIRY_S = 15.0


@dataclass(slots=True)
class _Note:
    """What a gateway has left, and when it was read; `word` once somebody has asked for it."""

    text: bytes
    read_at: float
    word: Word | None = None
    is_wrong: bool = False


class AllGateways:
    """This gateway and the others; `run` tells and hears while there is anybody to hear.

    `notes` None: there is no shared state. `peers` are the ids of those that are there now.
    """

    def __init__(
        self,
        sources: StatusSources,
        metrics: Metrics,
        own_id: str,
        notes: Notes | None,
        peers: Callable[[], Collection[str]],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._sources = sources
        self._metrics = metrics
        self._own_id = own_id
        self._notes = notes
        self._peers = peers
        self._sleep = sleep
        self._clock: Clock = sources.clock
        self._started_at = sources.wall_clock()
        self._heard: dict[str, _Note] = {}
        self._is_late = False

    async def run(self) -> None:
        """Tell and hear until cancelled; then leave nothing behind."""
        if self._notes is None:
            return
        try:
            while True:
                if self._peers():
                    await self.exchange(self._notes)
                await self._sleep(EVERY_S)
        finally:
            try:
                await self._notes.close()
            except (RedisError, OSError, TimeoutError) as error:
                _log.info("summaries: left without notice, %s", type(error).__name__)

    async def exchange(self, notes: Notes) -> None:
        """Leave the own word and read those of the others, as far as Redis answers."""
        try:
            await notes.leave(await in_turns(self._word()), _EXPIRY_S)
            said = await notes.read(self._peers(), MAX_BYTES)
        except (RedisError, OSError, TimeoutError) as error:
            if not self._is_late:
                _log.warning("summaries: other gateways are not heard, %s", type(error).__name__)
            self._is_late = True
            return
        self._is_late = False
        now = self._clock()
        self._heard = {peer: _Note(text, now) for peer, text in said.items()}

    async def status(self) -> dict[str, Any]:
        """The status of all gateways together, with `gateways` and `tenants`."""
        words = await self._words()
        own = self._teller()
        shown = await in_turns(status(self._sources, list(words.values())))
        own_tenants = tenant_tables(await in_turns(self._metrics.of_callers()))
        peers = self._peers()
        tellers = {self._own_id: (own, 0), **{p: (w.teller, w.left_out) for p, w in words.items()}}
        return {
            **shown,
            "in_flight": sum(teller.in_flight for teller, _ in tellers.values()),
            "connections": sum(teller.connections for teller, _ in tellers.values()),
            "gateways": [
                {
                    "id": name,
                    "is_asked": name == self._own_id,
                    "version": teller.version,
                    "started_at": teller.started_at,
                    "config_hash": teller.config_hash,
                    "config_differs": teller.config_hash != own.config_hash,
                    "in_flight": teller.in_flight,
                    "connections": teller.connections,
                    "models_left_out": left_out,
                }
                for name, (teller, left_out) in sorted(tellers.items())
            ],
            "gateways_not_heard": sorted(set(peers) - words.keys()),
            "tenants": {
                **summed_tenants([own_tenants, *(word.tenants for word in words.values())]),
                "budgets": {},
            },
        }

    async def _words(self) -> dict[str, Word]:
        """What those that are there now have told of late."""
        staleness_s = self._sources.runtime.current.settings.shared_state.staleness_s
        oldest, peers, found = self._clock() - staleness_s - EVERY_S, set(self._peers()), {}
        for peer, note in list(self._heard.items()):
            if peer not in peers or note.read_at < oldest or note.is_wrong:
                continue
            if note.word is None:
                try:
                    note.word = await in_turns(heard(note.text))
                except WordError as error:
                    note.is_wrong = True
                    _log.debug("summaries: that of %s is not believed: %s", peer, error)
                    continue
            found[peer] = note.word
        return found

    def _word(self) -> Steps[bytes]:
        models = yield from words_of(self._sources)
        callers = yield from self._metrics.of_callers()
        return (yield from encode(self._teller(), tenant_tables(callers), models))

    def _teller(self) -> Teller:
        runtime, data = self._sources.runtime.current, self._sources.data
        return Teller(
            __version__, self._started_at, runtime.content_hash, data.in_flight, data.limits.open
        )
