"""Takes deliveries that are due, and sends them: so many at once, so many a second to each host."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from router.admission.rates import RateLimit
from router.domain.clock import Clock
from router.domain.errors import InvalidRequestError, NotDurableError, NotFoundError
from router.domain.events import EventKind, told
from router.jobs.deliveries.addresses import host_of
from router.jobs.deliveries.poster import Message
from router.jobs.deliveries.records import (
    About,
    Delivery,
    Progress,
    Reply,
    given_up,
    looked,
    tried,
)
from router.jobs.deliveries.store import DeliveryStore
from router.settings.deliveries import DeliveriesSettings

_log = logging.getLogger(__name__)

_POLL_S = 1.0
_CLAIM_BEYOND_S = 30.0
"""A claim outlives its attempt by that: for its message to be made, and its end to be written."""
_RATE_KEPT_S = 10.0
_FAILED = "failed"

Telling = Callable[[Delivery], Awaitable[Message | None]]
"""What a delivery sends; None while what it is about has not ended. Raises NotFoundError."""
Post = Callable[[str, Message], Awaitable[Reply]]


class Deliverer:
    """The deliveries of one gateway process."""

    def __init__(
        self, store: DeliveryStore, settings: DeliveriesSettings, telling: Mapping[About, Telling],
        post: Post, wall_clock: Clock, rng: Random,
    ) -> None:  # fmt: skip
        self._store = store
        self._settings = settings
        self._telling = telling
        self._post = post
        self._clock = wall_clock
        self._rng = rng
        self._wake = asyncio.Event()
        self._over: set[str] = set()
        self._running: Counter[str] = Counter()
        self._rates: dict[str, tuple[RateLimit, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_draining = False
        self.outcomes: Counter[str] = Counter()

    def ended(self, subject_id: str) -> None:
        """What a delivery may be about has ended."""
        self._over.add(subject_id)
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled; what is cut off then is due again. Raises NotDurableError."""
        try:
            while True:
                self._wake.clear()
                await self.step()
                try:
                    async with asyncio.timeout(_POLL_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._tasks:
                task.cancel()
            await self.idle()

    async def step(self) -> None:
        """Begin all that is due and may begin. Raises NotDurableError."""
        if self.is_draining:
            return
        now = self._clock()
        if self._over:
            over, self._over = self._over, set()
            await self._store.wake(sorted(over), now)
        until = now + self._settings.timeout_s + _CLAIM_BEYOND_S
        for host in await self._store.hosts(now):
            room = self._room(host, now)
            if room:
                for delivery in await self._store.claim(host, now, until, room):
                    self._begin(delivery)
        old = now - _RATE_KEPT_S
        self._rates = {host: kept for host, kept in self._rates.items() if kept[1] > old}

    async def idle(self) -> None:
        """Wait until nothing is being sent."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _room(self, host: str, now: float) -> int:
        """How many messages may begin to that host now; they count for its rate."""
        settings = self._settings
        most = min(
            settings.concurrency - self._running.total(), settings.per_host - self._running[host]
        )
        if most <= 0:
            return 0
        rate, _ = self._rates.get(host) or (
            RateLimit(settings.rate_per_s, max(1.0, settings.rate_per_s), now), now,
        )  # fmt: skip
        self._rates[host] = rate, now
        room = 0
        while room < most and not rate.take(now):
            room += 1
        return room

    def _begin(self, delivery: Delivery) -> None:
        self._running[delivery.host] += 1
        task = asyncio.create_task(self._deliver(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also of a task that is cancelled before it has begun.
        task.add_done_callback(lambda _: self._is_over(delivery.host))

    def _is_over(self, host: str) -> None:
        self._running[host] -= 1
        if not self._running[host]:
            del self._running[host]
        self._wake.set()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            after = await self._after(delivery)
            if await self._store.settle(after):
                self._tell(after)
        except NotDurableError:
            _log.warning("what came of delivery %s could not be written: it is sent again",
                         delivery.id)  # fmt: skip

    async def _after(self, delivery: Delivery) -> Delivery:
        try:
            message = await self._telling[delivery.about](delivery)
            if message is None:
                return looked(delivery, self._clock())
            reply = await self._reply(delivery, message)
        except NotFoundError as error:
            return given_up(delivery, str(error), self._clock())
        except NotDurableError:
            raise
        except Exception:  # noqa: BLE001  root of a delivery: not met again every second
            _log.exception("delivery %s failed", delivery.id)
            reply = Reply(cause="internal error")
        now = self._clock()
        return tried(delivery, reply, now, self._settings.give_up_after_s, self._rng)

    async def _reply(self, delivery: Delivery, message: Message) -> Reply:
        try:
            # Once more: what may be called back may have changed since.
            host_of(delivery.url, self._settings, by_operator=delivery.about is About.EVENT)
        except InvalidRequestError as error:
            return Reply(cause=str(error))
        return await self._post(delivery.url, message)

    def _tell(self, after: Delivery) -> None:
        if after.state is not Progress.WAITING:
            self.outcomes[after.state] += 1
        elif after.attempts:
            self.outcomes[_FAILED] += 1
        if after.state in {Progress.DEAD, Progress.GONE}:
            _log.warning(
                "delivery of %s to %s was given up after %d attempts: %s",
                after.id, after.host, after.attempts, after.cause,
                extra=told(
                    EventKind.DELIVERY, host=after.host, id=after.id, attempts=after.attempts,
                    cause=after.cause,
                ),
            )  # fmt: skip
