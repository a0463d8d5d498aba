"""What the jobs say to their Redis, and how they know that it is on its disk."""

import asyncio
from typing import Any

from redis.commands.core import AsyncScript
from redis.exceptions import RedisError, ResponseError

from router.domain.errors import NotDurableError
from router.signals.redis_client import cancellations, raise_if_cancelled, redis_client

_NOT_REACHED = "the Redis of the jobs cannot be reached"
_NOT_KEPT = (
    "the Redis of the jobs does not write them to its disk: it needs appendonly yes, and WAITAOF"
)
_DURABLE_WITHIN_MS = 5000
_TIMEOUT_S = 10.0
_CONNECTIONS = 64


class RedisLink:
    """Commands and scripts of the jobs. All methods raise NotDurableError if Redis is gone."""

    def __init__(self, url: str, prefix: str) -> None:
        self._prefix = prefix
        self._redis = redis_client(url, prefix, _TIMEOUT_S, _CONNECTIONS)
        self._scripts: dict[str, AsyncScript] = {}
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._keeps = False

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def read(self, *command: str | bytes | int) -> Any:  # noqa: ANN401  Redis's answers
        """The answer to a command."""
        before = cancellations()
        try:
            async with self._free:
                answer = await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except RedisError as error:
            self._keeps = False
            is_refused = command[0] == "WAITAOF" and isinstance(error, ResponseError)
            raise NotDurableError(_NOT_KEPT if is_refused else _NOT_REACHED) from error
        raise_if_cancelled(before)
        return answer

    async def run(self, script: str, *told: Any, durable: bool = False) -> Any:  # noqa: ANN401
        """Run a script; if `durable`, return only once what it wrote is on the disk."""
        if durable and not self._keeps:
            # Before anything is written: what is refused shall not be run.
            await self.read("WAITAOF", 1, 0, _DURABLE_WITHIN_MS)
            self._keeps = True
        before = cancellations()
        try:
            async with self._free:
                answer, kept = await self._ran(script, told, durable=durable)
        except RedisError as error:
            self._keeps = False  # another may stand in its place
            raise NotDurableError(_NOT_REACHED) from error
        raise_if_cancelled(before)
        if not kept:
            raise NotDurableError("the Redis of the jobs did not write them to its disk in time")
        return answer

    async def _ran(self, script: str, told: tuple[Any, ...], *, durable: bool) -> tuple[Any, bool]:
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._redis.register_script(script)
        if not durable:
            return await registered(keys=[self._prefix], args=told), True
        # On one connection: what is waited for is what this connection has written.
        async with self._redis.client() as connection:
            answer = await registered(keys=[self._prefix], args=told, client=connection)
            kept = await connection.execute_command(  # type: ignore[no-untyped-call]
                "WAITAOF", 1, 0, _DURABLE_WITHIN_MS
            )
        return answer, kept[0] >= 1
