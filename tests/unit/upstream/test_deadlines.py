import asyncio
import time
from collections.abc import Callable

from router.upstream.deadlines import TICK_S, DeadlineWheel


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Entry:
    def __init__(self, on_expire: Callable[[], object] = lambda: None) -> None:
        self.expired = asyncio.Event()
        self.times = 0
        self._on_expire = on_expire

    def expire(self) -> None:
        self.times += 1
        self.expired.set()
        self._on_expire()


async def test_expires_late_by_two_ticks_at_most_and_never_early():
    clock = ManualClock()
    wheel = DeadlineWheel(clock)
    entry = Entry()
    wheel.arm(1001.0, entry)
    for now, times in [(1000.99, 0), (1001.0, 0), (1001.0 + 2 * TICK_S, 1), (1002.0, 1)]:
        clock.now = now
        wheel.expire_due()
        assert entry.times == times
    wheel.close()


async def test_a_disarmed_entry_never_expires_and_leaves_nothing():
    clock = ManualClock()
    wheel = DeadlineWheel(clock)
    entry, other = Entry(), Entry()
    tick = wheel.arm(1001.0, entry)
    assert wheel.arm(1001.0, other) == tick
    wheel.disarm(tick, entry)
    wheel.disarm(tick, entry)
    assert wheel.pending == 1
    clock.now = 1002.0
    wheel.expire_due()
    assert (entry.times, other.times, wheel.pending) == (0, 1, 0)


async def test_an_entry_that_expires_may_disarm_and_arm_others():
    clock = ManualClock()
    wheel = DeadlineWheel(clock)
    victim, later = Entry(), Entry()
    ticks: dict[str, int] = {}

    def rearrange() -> None:
        wheel.disarm(ticks["victim"], victim)
        wheel.arm(1005.0, later)

    wheel.arm(1001.0, Entry(rearrange))
    ticks["victim"] = wheel.arm(1001.5, victim)
    clock.now = 1002.0
    wheel.expire_due()
    assert (victim.times, later.times, wheel.pending) == (0, 0, 1)
    clock.now = 1006.0
    wheel.expire_due()
    assert later.times == 1


async def test_the_timer_serves_a_shorter_deadline_armed_after_a_longer_one():
    wheel = DeadlineWheel(time.monotonic)
    started = time.monotonic()
    far, near = Entry(), Entry()
    wheel.arm(started + 60.0, far)
    wheel.arm(started + 0.05, near)
    async with asyncio.timeout(30):
        await near.expired.wait()
    assert time.monotonic() - started >= 0.05
    assert (far.times, wheel.pending) == (0, 1)
    wheel.close()


async def test_deadlines_armed_while_expiring_are_served_too():
    wheel = DeadlineWheel(time.monotonic)
    second = Entry()
    wheel.arm(time.monotonic() + 60.0, Entry())
    first = Entry(lambda: wheel.arm(time.monotonic() + 0.02, second))
    wheel.arm(time.monotonic() + 0.02, first)
    async with asyncio.timeout(30):
        await second.expired.wait()
    wheel.close()


async def test_close_stops_the_timer():
    wheel = DeadlineWheel(time.monotonic)
    entry = Entry()
    wheel.arm(time.monotonic(), entry)
    wheel.close()
    await asyncio.sleep(3 * TICK_S)  # longer than the timer would have taken
    assert entry.times == 0
