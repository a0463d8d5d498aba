"""A receiver of callbacks and events on loopback: keeps what it gets, answers as told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fakes.upstreams import Received, Upstream, ok, running

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY="
LOOPBACK = {"private_networks": ["127.0.0.0/8"], "allow_http": True, "hosts": ["127.0.0.1"]}


class Receiver(Upstream):
    """Got messages, in their order; `behave` decides what is answered."""

    async def message(self, number: int = 0) -> Received:
        """The message of that number, once it has come."""
        async with asyncio.timeout(10):
            while len(self.received) <= number:
                await asyncio.sleep(0.005)
        return self.received[number]


@asynccontextmanager
async def receiving(status: int = 200) -> AsyncIterator[Receiver]:
    """A receiver that answers with that status."""
    receiver = Receiver(ok(b"", status))
    async with running(receiver):
        yield receiver
