"""A credential is fetched ahead of expiry, once for many refusals, and never by a request."""

import asyncio
import logging

import pytest

from router.backends.serverless.refresher import CredentialError, Fetched, Refresher
from router.domain.errors import PlatformRefusedError

WAIT_S = 5.0


class World:
    """A wall clock that the refresher's own sleeps move, and a script of what is fetched."""

    def __init__(self, *script: tuple[str, float | None] | Exception) -> None:
        self.now = 1_000_000.0
        self.script = list(script)
        self.fetched_at: list[float] = []
        self.exhausted = asyncio.Event()
        self.refresher = Refresher("a token", self.fetch, lambda: self.now, self.sleep)

    async def fetch(self) -> Fetched[str]:
        self.fetched_at.append(round(self.now - 1_000_000.0, 3))
        if len(self.script) == 1:
            self.exhausted.set()
        if not self.script:
            await asyncio.Event().wait()
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        value, lifetime_s = step
        return Fetched(value, None if lifetime_s is None else self.now + lifetime_s)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def run_through(self) -> None:
        """Run until everything in the script was fetched and the loop wants more."""
        task = asyncio.create_task(self.refresher.run())
        async with asyncio.timeout(WAIT_S):
            await self.exhausted.wait()
            wanted = len(self.fetched_at) + 1
            while len(self.fetched_at) < wanted:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize(
    ("lifetime_s", "again_at"),
    [(3600.0, 3300.0), (1201.0, 901.0), (400.0, 300.0), (4.0, 3.0), (None, 60.0), (-5.0, 0.1)],
    ids=["an hour", "twenty minutes", "short", "seconds", "no expiry", "expired on arrival"],
)
async def test_it_is_fetched_again_ahead_of_its_expiry(lifetime_s, again_at) -> None:
    world = World(("token", lifetime_s))
    await world.run_through()
    assert world.fetched_at == [0.0, again_at]


async def test_failures_are_retried_with_growing_pauses_up_to_a_minute() -> None:
    world = World(*[CredentialError("down")] * 9)
    await world.run_through()
    pauses = [b - a for a, b in zip(world.fetched_at, world.fetched_at[1:], strict=False)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_failed_refresh_keeps_what_is_still_valid() -> None:
    world = World(("old", 400.0), CredentialError("down"))
    await world.run_through()
    world.now = 1_000_000.0 + 399.0
    assert world.refresher.current() == "old"
    world.now = 1_000_000.0 + 400.0
    with pytest.raises(PlatformRefusedError, match="no valid credentials"):
        world.refresher.current()


async def test_there_is_none_before_the_first_fetch() -> None:
    world = World(("token", None))
    with pytest.raises(PlatformRefusedError, match="no valid credentials"):
        world.refresher.current()
    assert not world.refresher.was_tried.is_set()
    await world.run_through()
    assert world.refresher.current() == "token"


@pytest.mark.parametrize("first", [("token", None), CredentialError("down")], ids=["ok", "failed"])
async def test_whoever_waits_at_the_start_does_not_wait_for_success(first) -> None:
    world = World(first, ("token", None))
    task = asyncio.create_task(world.refresher.run())
    async with asyncio.timeout(WAIT_S):
        await world.refresher.was_tried.wait()
    task.cancel()
    await asyncio.wait([task])


async def test_many_refusals_are_one_fetch() -> None:
    fetches = 0
    fetched = asyncio.Condition()

    async def fetch() -> Fetched[str]:
        nonlocal fetches
        async with fetched:
            fetches += 1
            fetched.notify_all()
        return Fetched(f"token {fetches}", look_again_s=3600.0)

    async def reached(count: int) -> None:
        async with asyncio.timeout(WAIT_S), fetched:
            await fetched.wait_for(lambda: fetches >= count)

    refresher = Refresher("a token", fetch, lambda: 0.0)
    task = asyncio.create_task(refresher.run())
    try:
        await reached(1)
        for _ in range(100):
            refresher.refused()
        await reached(2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert refresher.current() == "token 2"
        assert fetches == 2
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_same_failure_is_logged_once(caplog) -> None:
    failures = [CredentialError("down")] * 5
    world = World(*failures, CredentialError("gone"), ("secret", 100.0))
    with caplog.at_level(logging.INFO):
        await world.run_through()
    assert [record.getMessage() for record in caplog.records] == [
        "credentials: cannot get a token: down",
        "credentials: cannot get a token: gone",
        "credentials: got a token",
    ]
    assert "secret" not in caplog.text
