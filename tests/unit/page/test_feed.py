import asyncio
import json
from typing import Any

import msgspec
import pytest

from router.page.feed import MOST_READERS, Feed, Statuses, TooManyReadersError
from router.telemetry.exposition import Snapshot
from tests.fakes.builders import FakeClock


class Gateway:
    """A status that tests change; time passes when they let it."""

    def __init__(self) -> None:
        self.models: dict[str, int] = {"m": 1, "n": 1}
        self.ticks = asyncio.Semaphore(0)
        clock = FakeClock()
        self.feed = Feed(
            Statuses(self.status, self.of_all), self.snapshot, clock, clock, self.sleep
        )

    async def status(self) -> dict[str, Any]:
        models = [{"name": name, "load": load} for name, load in self.models.items()]
        raw = [msgspec.Raw(msgspec.json.encode(model)) for model in models]
        return {"models": raw, "in_flight": sum(self.models.values())}

    async def of_all(self) -> dict[str, Any]:
        return {**await self.status(), "tenants": {"requests": {}}, "gateways": ["a", "b"]}

    async def snapshot(self) -> Snapshot:
        return Snapshot({"router_tenant_requests_total": [(("t", "ok"), 3.0)]})

    async def sleep(self, seconds: float) -> None:
        if seconds == 1.0:  # till the next view
            await self.ticks.acquire()
        else:
            await asyncio.Event().wait()


@pytest.fixture
async def gateway() -> Any:
    made = Gateway()
    running = asyncio.create_task(made.feed.run())
    await asyncio.sleep(0)
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def read(message: bytes) -> Any:
    assert message.startswith(b"data: ")
    assert message.endswith(b"\n\n")
    return json.loads(message[6:])


async def test_a_reader_gets_the_whole_view_and_then_what_changed(gateway: Gateway) -> None:
    messages = gateway.feed.read()
    whole = read(await anext(messages))
    assert whole["whole"] is True
    assert whole["models"] == {"m": {"name": "m", "load": 1}, "n": {"name": "n", "load": 1}}
    assert whole["tenants"]["requests"] == {"t": {"ok": 3.0}}
    assert read(await anext(messages))["models"] == {}
    gateway.models = {"m": 2}
    gateway.ticks.release()
    changed = read(await anext(messages))
    assert (changed["whole"], changed["gone"], changed["rest"]) == (False, ["n"], {"in_flight": 2})
    assert changed["models"] == {"m": {"name": "m", "load": 2}}
    await messages.aclose()  # type: ignore[attr-defined]


async def test_whoever_does_not_keep_up_begins_anew(gateway: Gateway) -> None:
    slow, quick = gateway.feed.read(), gateway.feed.read()
    await anext(slow)
    await anext(quick)
    for load in range(2, 9):
        gateway.models["m"] = load
        gateway.ticks.release()
        await anext(quick)
    await asyncio.sleep(0)
    assert read(await anext(slow))["whole"] is True
    for reader in (slow, quick):
        await reader.aclose()  # type: ignore[attr-defined]


async def test_there_are_no_more_readers_than_may_be_and_they_make_room(gateway: Gateway) -> None:
    readers = [gateway.feed.read() for _ in range(MOST_READERS)]
    for reader in readers:
        await anext(reader)
    with pytest.raises(TooManyReadersError):
        await anext(gateway.feed.read())
    for reader in readers:
        await reader.aclose()  # type: ignore[attr-defined]
    assert not gateway.feed.readers
    again = gateway.feed.read()
    assert read(await anext(again))["whole"] is True
    await again.aclose()  # type: ignore[attr-defined]


async def test_a_view_of_all_gateways_is_another_one_within_the_same_bound(
    gateway: Gateway,
) -> None:
    here, everywhere = gateway.feed.read(), gateway.feed.read(every=True)
    assert "gateways" not in read(await anext(here))["rest"]
    whole = read(await anext(everywhere))
    assert whole["rest"]["gateways"] == ["a", "b"]
    assert whole["tenants"] == {"requests": {}}
    assert gateway.feed.readers == 2
    for reader in (here, everywhere):
        await reader.aclose()  # type: ignore[attr-defined]
    assert gateway.feed.readers == 0
