"""Short texts that gateways leave for each other in Redis, each under its own key, with an expiry.

For what is too large, or too slow to change, for the record that is exchanged ten times a second.
What is in them is somebody else's business; whatever Redis holds, no more is read than asked for.
"""

import asyncio
from collections.abc import Collection

from router.signals.redis import SharedStateConfig
from router.signals.redis_client import redis_client

_OPERATIONS = 3
"""Each of a call's steps, connecting included, may take the operation timeout."""
_AT_A_TIME = 16


class Notes:
    """The notes of one topic. Raises RedisError or OSError while Redis does not answer.

    Raises ValueError for a URL that is not one of Redis.
    """

    def __init__(self, config: SharedStateConfig, topic: str) -> None:
        self._prefix = f"{config.prefix}:{topic}"
        self._own_id = config.gateway_id
        self._budget_s = config.operation_timeout_s * _OPERATIONS
        self._redis = redis_client(config.redis_url, config.prefix, config.operation_timeout_s, 2)

    async def leave(self, text: bytes, expiry_s: float, kind: str = "") -> None:
        """Leave a note of that kind for the others, in place of the last one."""
        async with asyncio.timeout(self._budget_s):
            await self._redis.set(self._key(kind + self._own_id), text, px=round(expiry_s * 1e3))

    async def read(
        self, peers: Collection[str], most_bytes: int, kind: str = ""
    ) -> dict[str, bytes]:
        """The notes of that kind of these gateways; what is longer is left out."""
        found: dict[str, bytes] = {}
        names = list(peers)
        for start in range(0, len(names), _AT_A_TIME):
            for name in names[start : start + _AT_A_TIME]:
                async with asyncio.timeout(self._budget_s):
                    # A longer one never comes over the wire whole.
                    text = _bytes(await self._redis.getrange(self._key(kind + name), 0, most_bytes))
                if 0 < len(text) <= most_bytes:
                    found[name] = text
        return found

    async def settle(self, name: str, text: bytes, expiry_s: float, most_bytes: int) -> bytes:
        """The text that all have under that name: the first one's who said something."""
        key = f"{self._prefix}-settled:{name}"
        async with asyncio.timeout(self._budget_s):
            await self._redis.set(key, text, nx=True, px=round(expiry_s * 1e3))
            await self._redis.pexpire(key, round(expiry_s * 1e3))
            return _bytes(await self._redis.getrange(key, 0, most_bytes))

    async def unsettle(self, name: str) -> None:
        """Let the next one who says something under that name be the first."""
        async with asyncio.timeout(self._budget_s):
            await self._redis.delete(f"{self._prefix}-settled:{name}")

    async def close(self) -> None:
        """Leave nothing behind, as far as Redis answers."""
        try:
            async with asyncio.timeout(self._budget_s):
                await self._redis.delete(self._key(self._own_id))
        finally:
            await self._redis.aclose()

    def _key(self, owner: str) -> str:
        return f"{self._prefix}:{owner}"


def _bytes(answer: bytes | str) -> bytes:
    return answer if isinstance(answer, bytes) else answer.encode()
