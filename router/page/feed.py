"""What the page is told: one view for all who look, made once, and afterwards only what changed.

Reads status and metrics through what it is given, for one process or for several. A reader that
does not keep up gets the whole view again rather than a queue.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from router.domain.clock import Clock, Sleep
from router.page.history import STEP_S, History
from router.page.spending import Spending
from router.settings.budgets import Budget
from router.telemetry import families
from router.telemetry.exposition import Labels, Snapshot
from router.turns import Turn, in_turns

MOST_READERS = 64
_EVERY_S = 1.0
_SHARE = 0.01
"""Of a core that making views may take: they come less often where there are many models."""
_MOST_WAITING = 4


Look = Callable[[], Awaitable[Mapping[str, Any]]]


class TooManyReadersError(Exception):
    """As many pages as may be are open."""


class _Named(msgspec.Struct):
    name: str


class Statuses(NamedTuple):
    """Where the status is asked: of this gateway, and of all that share its state.

    The latter has `tenants`, and `gateways`: who is in it.
    """

    this: Look
    every: Look


class Feed:
    """The views of a gateway, and of all that share its state; `run` keeps them, and the history.

    `cpu_clock` tells the seconds that the event loop's thread has computed.
    """

    def __init__(
        self,
        status: Statuses,
        snapshot: Callable[[], Awaitable[Snapshot]],
        cpu_clock: Clock,
        wall_clock: Clock,
        sleep: Sleep = asyncio.sleep,
        budgets: Callable[[], Sequence[Budget]] = tuple,
    ) -> None:
        self.history = History()
        self.all_gateways = status.every
        self._snapshot = snapshot
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._budgets = budgets
        self._spending = Spending()
        self._tenants = msgspec.Raw(b"{}")
        clocks = cpu_clock, wall_clock
        self._here = _View(lambda: self._with_tenants(status.this), clocks, sleep)
        self._everywhere = _View(status.every, clocks, sleep)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_history())
            tasks.create_task(self._here.run())
            tasks.create_task(self._everywhere.run())

    async def _keep_history(self) -> None:
        while True:
            snapshot = await self._snapshot()
            await in_turns(self.history.add(snapshot, self._wall_clock()))
            self._tenants = msgspec.Raw(msgspec.json.encode(self._shown(snapshot)))
            # In the middle of the next step, so that neither a late nor an early turn misses one.
            await self._sleep(STEP_S * 1.5 - self._wall_clock() % STEP_S)

    async def tenants(self) -> dict[str, Any]:
        """Who has asked for what here, who pays for what, and who was refused."""
        return self._shown(await self._snapshot())

    def _shown(self, snapshot: Snapshot) -> dict[str, Any]:
        costs = snapshot.values.get(families.TENANT_COST.name, ())
        self._spending.add(costs, self._budgets(), self._wall_clock())
        return {**tenant_tables(snapshot.values), "budgets": self._spending.shown()}

    async def _with_tenants(self, look: Look) -> Mapping[str, Any]:
        return {**await look(), "tenants": self._tenants}

    @property
    def readers(self) -> int:
        """How many are told what changes."""
        return len(self._here.readers) + len(self._everywhere.readers)

    async def read(self, *, every: bool = False) -> AsyncIterator[bytes]:
        """Messages for one reader, of this gateway or of all; the whole view first.

        Raises TooManyReadersError.
        """
        if self.readers >= MOST_READERS:
            raise TooManyReadersError
        view = self._everywhere if every else self._here
        reader = await view.enter()
        try:
            while True:
                yield await reader.get()
        finally:
            view.leave(reader)


class _View:
    """A status document, kept current while somebody reads it."""

    def __init__(self, look: Look, clocks: tuple[Clock, Clock], sleep: Sleep) -> None:
        self.readers: set[asyncio.Queue[bytes]] = set()
        self._look = look
        self._cpu_clock, self._wall_clock = clocks
        self._sleep = sleep
        self._is_read = asyncio.Event()
        self._models: dict[str, bytes] = {}
        self._rest = b"{}"
        self._tenants = b"{}"

    async def run(self) -> None:
        """Tell the readers what changes, until cancelled."""
        while True:
            await self._is_read.wait()
            began = self._cpu_clock()
            self._tell(await self._changes())
            took_s = self._cpu_clock() - began
            await self._sleep(max(_EVERY_S, took_s / _SHARE))

    async def enter(self) -> asyncio.Queue[bytes]:
        """A new reader's messages."""
        reader: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)
        if not self.readers:
            await self._changes()  # nobody has looked for some time
        reader.put_nowait(self._message(self._models, [], whole=True))
        self.readers.add(reader)
        self._is_read.set()
        return reader

    def leave(self, reader: asyncio.Queue[bytes]) -> None:
        """Tell that reader nothing more."""
        self.readers.discard(reader)
        if not self.readers:
            self._is_read.clear()

    async def _changes(self) -> bytes:
        """Look again; returns what is different now."""
        document = dict(await self._look())
        models, turn = {}, Turn()
        for model in document.pop("models"):
            raw = bytes(model) if isinstance(model, msgspec.Raw) else msgspec.json.encode(model)
            models[msgspec.json.decode(raw, type=_Named).name] = raw
            await turn.pause_if_over()
        changed = {name: raw for name, raw in models.items() if self._models.get(name) != raw}
        gone = [name for name in self._models if name not in models]
        self._tenants = msgspec.json.encode(document.pop("tenants"))
        self._models, self._rest = models, msgspec.json.encode(document)
        return self._message(changed, gone)

    def _message(
        self, models: Mapping[str, bytes], gone: list[str], *, whole: bool = False
    ) -> bytes:
        rows = b",".join(msgspec.json.encode(name) + b":" + raw for name, raw in models.items())
        parts = {
            b"at": b"%.3f" % self._wall_clock(), b"whole": b"true" if whole else b"false",
            b"models": b"{%b}" % rows, b"gone": msgspec.json.encode(gone), b"rest": self._rest,
            b"tenants": self._tenants,
        }  # fmt: skip
        return b"data: {%b}\n\n" % b",".join(b'"%b":%b' % part for part in parts.items())

    def _tell(self, changes: bytes) -> None:
        whole = None
        for reader in self.readers:
            if not reader.full():
                reader.put_nowait(changes)
                continue
            while not reader.empty():
                reader.get_nowait()
            whole = whole or self._message(self._models, [], whole=True)
            reader.put_nowait(whole)


def tenant_tables(values: Mapping[str, Sequence[tuple[Labels, float]]]) -> dict[str, Any]:
    """What is counted of tenants, and of keys that were refused: by whom, and by what."""
    tables: dict[str, defaultdict[str, dict[str, float]]] = {}
    for name, family in _TABLES.items():
        table = tables[name] = defaultdict(dict)
        for (who, *what), value in values.get(family, ()):
            table[who][what[0] if what else ""] = value
    return tables


_TABLES = {
    "requests": families.TENANT_REQUESTS.name,
    "cost_usd": families.TENANT_COST.name,
    "tokens": families.TENANT_TOKENS.name,
    "gb_s": families.TENANT_GB_SECONDS.name,
    "refusals": families.REFUSALS.name,
}
