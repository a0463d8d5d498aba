"""Sends a body that is still coming from the client, at the pace of the slower side.

Decides who is waited for, and for how long the upstream may leave bytes lying. Nothing that was
taken from the client is kept, so nothing here is ever sent twice.
"""

import asyncio
from collections.abc import AsyncIterator

from router.domain.clock import Clock
from router.domain.errors import AttemptError, RouterError, UpstreamTimeoutError
from router.domain.ports import Upload
from router.upstream.connection import Connection
from router.upstream.response import Rest


class Feeder:
    """Feeds one upload to the exchange of one connection, in a task of its own.

    The upstream has `timeout_s` in all to take the body and to answer; the time that the client
    takes to send it does not count. `deadline` holds whoever is slow. Whoever makes a feeder stops
    it.
    """

    def __init__(
        self,
        connection: Connection,
        upload: Upload,
        clock: Clock,
        timeout_s: float,
        deadline: float | None,
    ) -> None:
        self._connection = connection
        self._upload = upload
        self._clock = clock
        self._left_s = timeout_s
        self._deadline = deadline
        self.error: RouterError | None = None
        """What was wrong with the client's side, if that ended the exchange."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop sending; what the client still sends is not taken from it."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def _run(self) -> None:
        try:
            await self._send_all()
        except RouterError as error:
            self.error = error
            self._connection.fail(AttemptError("the request's body did not come to its end"))

    async def _send_all(self) -> None:
        connection = self._connection
        while connection.expects_body:
            part = await self._upload.read()
            if not connection.is_busy:
                return  # answered meanwhile
            connection.send_part(part)
            if (writable := connection.writable()) is not None:
                await self._wait_for_upstream(writable)
        if not connection.is_busy:
            return
        end = self._clock() + self._left_s
        connection.set_deadline(end if self._deadline is None else min(end, self._deadline))

    async def _wait_for_upstream(self, writable: asyncio.Future[None]) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(self._left_s):
                await writable
        except TimeoutError:
            self._connection.fail(
                UpstreamTimeoutError("the upstream did not take the request's body in time")
            )
        self._left_s -= self._clock() - began


class AnswerDuringUpload(AsyncIterator[bytes]):
    """The rest of an answer that began before its request had been sent to the end."""

    def __init__(self, rest: Rest, feeder: Feeder) -> None:
        self._rest = rest
        self._feeder = feeder

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._rest)
        except AttemptError as error:
            if self._feeder.error is not None:
                raise self._feeder.error from error
            raise

    async def aclose(self) -> None:
        """Abandon the rest, and what has not been sent of the request."""
        await self._rest.aclose()
        await self._feeder.stop()
