"""The deliverer with each store: hours of failures in virtual time, restarts, bounds."""

import asyncio
from random import Random

from router.jobs.deliveries.deliverer import Deliverer
from router.jobs.deliveries.poster import Message
from router.jobs.deliveries.records import About, Delivery, Progress, Reply
from router.jobs.store import JobStore
from router.settings.deliveries import DeliveriesSettings

HOUR_S = 3600.0
MOST = 100


class World:
    """Virtual time, a receiver that does as told, and a gateway that can be started anew."""

    def __init__(self, store: JobStore, **settings: object) -> None:
        self.now = 1e9
        self.store = store
        self.settings = DeliveriesSettings.model_validate(
            {"hosts": ["*.test"], "secret_file": "s", **settings}
        )
        self.reply = Reply(503)
        self.ids: list[str] = []
        self.got: list[tuple[float, str]] = []
        self.has_ended = True
        self.in_flight = self.most_in_flight = 0
        self.restart()

    def restart(self) -> None:
        self.deliverer = Deliverer(
            self.store.deliveries, self.settings, {About.JOB: self._told}, self._post,
            lambda: self.now, Random(7),
        )  # fmt: skip

    async def _told(self, delivery: Delivery) -> Message | None:
        return Message([("webhook-id", delivery.message_id)], b"{}") if self.has_ended else None

    async def _post(self, url: str, message: Message) -> Reply:
        self.got.append((self.now, url))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        return self.reply

    async def add(self, number: int, host: str = "a.test") -> str:
        id_, url = f"job-{number:03}", f"https://{host}/{number}"
        await self.store.deliveries.add(
            Delivery(id_, "t", About.JOB, url, f"{host}:443", self.now, self.now + 60.0, self.now),
            MOST,
        )
        self.ids.append(id_)
        return id_

    async def step(self) -> None:
        await self.deliverer.step()
        await self.deliverer.idle()

    async def pass_until(self, until: float) -> None:
        """Let time pass, in the steps in which a gateway looks, but skipping those without work."""
        while self.now < until:
            await self.step()
            found = [await self.state(id_) for id_ in self.ids]
            due = [one.next_at for one in found if one.state is Progress.WAITING]
            if not due:
                return
            self.now = min(until, max(min(due), self.now))

    async def state(self, id_: str) -> Delivery:
        found = await self.store.deliveries.get(id_)
        assert found is not None
        return found


async def test_a_receiver_that_fails_for_an_hour_gets_its_message_through_restarts(store: JobStore):
    world = World(store)
    id_, began = await world.add(1), world.now
    await world.pass_until(began + HOUR_S / 2)
    world.restart()
    await world.pass_until(began + HOUR_S)
    tries = len(world.got)
    assert 8 <= tries <= 13
    pauses = [later - now for (now, _), (later, _) in zip(world.got, world.got[1:], strict=False)]
    assert pauses[0] < 10.0
    assert pauses[-1] > 600.0
    assert (await world.state(id_)).cause == "its receiver answered 503"
    world.reply = Reply(200)
    await world.pass_until(began + 3 * HOUR_S)
    found = await world.state(id_)
    assert (found.state, found.attempts) == (Progress.DELIVERED, tries + 1)
    assert world.deliverer.outcomes["delivered"] == 1
    await world.pass_until(began + 9 * HOUR_S)
    assert len(world.got) == tries + 1


async def test_after_a_day_it_is_dead_and_says_why(store: JobStore):
    world = World(store)
    id_, began = await world.add(1), world.now
    await world.pass_until(began + 25 * HOUR_S)
    found = await world.state(id_)
    assert (found.state, found.cause) == (Progress.DEAD, "its receiver answered 503")
    assert found.ended_at <= began + 24 * HOUR_S
    assert 25 <= found.attempts <= 45
    assert world.deliverer.outcomes["dead"] == 1


async def test_one_that_is_gone_is_asked_once(store: JobStore):
    world = World(store)
    world.reply = Reply(410)
    id_ = await world.add(1)
    await world.pass_until(world.now + HOUR_S)
    assert (await world.state(id_)).state is Progress.GONE
    assert len(world.got) == 1


async def test_nothing_is_sent_before_the_end_and_all_at_once_then(store: JobStore):
    world = World(store)
    world.has_ended, world.reply = False, Reply(200)
    id_ = await world.add(1)
    await world.step()
    assert world.got == []
    assert (await world.state(id_)).attempts == 0
    world.now += 1.0
    world.has_ended = True
    await world.step()
    assert world.got == []  # it looks again in half a minute
    world.deliverer.ended(id_)
    await world.step()
    assert [at for at, _ in world.got] == [world.now]


async def test_an_end_that_nobody_told_of_is_found(store: JobStore):
    world = World(store)
    world.has_ended, world.reply = False, Reply(200)
    await world.add(1)
    await world.step()
    world.has_ended = True  # with a gateway that was killed before it could say so
    world.restart()
    await world.pass_until(world.now + 60.0)
    assert len(world.got) == 1


async def test_a_host_gets_so_many_a_second_and_at_once_and_delays_no_other(store: JobStore):
    world = World(store, rate_per_s=2.0, per_host=3, concurrency=4)
    world.reply = Reply(200)
    for number in range(12):
        await world.add(number)
    await world.add(20, "b.test")
    for _ in range(48):
        await world.step()
        world.now += 0.125
    to_a = [at for at, url in world.got if "a.test" in url]
    assert len(to_a) == 12
    for number, at in enumerate(to_a):
        assert sum(at - 1.0 < other <= at for other in to_a[: number + 1]) <= 4  # burst and rate
    assert to_a[-1] - to_a[0] >= 4.9
    assert next(at for at, url in world.got if "b.test" in url) == to_a[0]
    assert world.most_in_flight <= 4


async def test_what_is_in_flight_is_bounded(store: JobStore):
    world = World(store, per_host=2, concurrency=3)
    world.reply = Reply(200)
    for number in range(8):
        await world.add(number, f"{'ab'[number % 2]}.test")
    for _ in range(8):
        await world.step()
        world.now += 1.0
    assert len(world.got) == 8
    assert world.most_in_flight <= 3


async def test_a_host_that_may_not_be_called_any_more_is_not(store: JobStore):
    world = World(store)
    id_ = await world.add(1, "elsewhere.example")
    await world.step()
    assert world.got == []
    assert "not one that may be called back" in (await world.state(id_)).cause


async def test_a_draining_gateway_begins_nothing(store: JobStore):
    world = World(store)
    await world.add(1)
    world.deliverer.is_draining = True
    await world.step()
    assert world.got == []
