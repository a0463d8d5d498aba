"""The loop of SharedState against a port where nobody listens, under a clock of the test."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from router.signals.records import Publication
from router.signals.redis import MAX_BACKOFF_S, SharedState, SharedStateConfig
from router.signals.snapshot import FleetSnapshot

NOTHING = Publication({}, {}, {})


class FakeTime:
    """A clock that only sleeping moves; ends the loop after `last_s`."""

    def __init__(self, last_s: float) -> None:
        self.now = 100.0
        self.pauses: list[float] = []
        self._end = self.now + last_s

    def clock(self) -> float:
        return self.now

    async def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now += pause_s
        if self.now > self._end:
            raise asyncio.CancelledError


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that refuses connections, and is not given to anyone else meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"redis://user:s3cret@127.0.0.1:{bound.getsockname()[1]}/0"


def make_state(url: str, time: FakeTime) -> SharedState:
    config = SharedStateConfig(redis_url=url, namespace="test", gateway_id="a")
    return SharedState(config, lambda: NOTHING, time.clock, time.sleep)


async def run(state: SharedState) -> None:
    with pytest.raises(asyncio.CancelledError):
        await state.run()


async def test_backs_off_to_a_bound_and_never_gives_up(dead_url: str) -> None:
    time = FakeTime(last_s=20)
    state = make_state(dead_url, time)

    await run(state)

    assert time.pauses[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert max(time.pauses) == MAX_BACKOFF_S
    assert state.flushes_failed == len(time.pauses) > 20
    assert state.flushes_ok == 0
    assert state.last_ok_at is None


async def test_acts_alone_at_the_staleness_bound_and_not_before(dead_url: str) -> None:
    time = FakeTime(last_s=20)
    state = make_state(dead_url, time)
    seen: list[tuple[float, bool]] = []

    async def watching_sleep(pause_s: float) -> None:
        seen.append((time.now, state.snapshot.is_leader))
        await time.sleep(pause_s)

    state._sleep = watching_sleep
    await run(state)

    leading_since = min(now for now, is_leader in seen if is_leader)
    assert leading_since == pytest.approx(103.0, abs=0.01)
    assert state.snapshot.stale(leading_since, 3.0)
    assert all(is_leader == (now >= leading_since) for now, is_leader in seen)


async def test_an_outage_is_logged_once_and_without_the_password(
    dead_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="router")
    state = make_state(dead_url, FakeTime(last_s=20))

    await run(state)

    warnings = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(state._config)


@pytest.mark.parametrize("outcome", [None, OSError()], ids=["works", "fails"])
async def test_a_cancellation_that_the_client_swallows_ends_it_all_the_same(
    dead_url: str, outcome: OSError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = FakeTime(last_s=20)
    state = make_state(dead_url, time)
    asked = asyncio.Event()

    async def exchange(_: float) -> FleetSnapshot:
        asked.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if outcome is not None:
            raise outcome
        return state.snapshot

    monkeypatch.setattr(state, "_exchange", exchange)
    running = asyncio.create_task(state.run())
    await asked.wait()
    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert time.pauses == []


@pytest.mark.parametrize(
    "url", ["http://:s3cret@host", "redis://u:s3/cret@host", "", "redis://h:x"]
)
def test_a_wrong_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="not a Redis URL") as raised:
        make_state(url, FakeTime(1))

    assert "cret" not in str(raised.value)
    assert raised.value.__cause__ is None
