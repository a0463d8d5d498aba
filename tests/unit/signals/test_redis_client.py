from typing import Any

import pytest
from redis.exceptions import InvalidResponse, RedisError

from router.signals.redis_client import redis_client

URL = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/main"


async def test_a_sentinel_that_answers_nonsense_does_not_hide_the_others(monkeypatch):
    client = redis_client(URL, "n", 0.1, 2)
    pool: Any = client.connection_pool
    broken, well = pool.sentinel_manager.sentinels

    async def nonsense() -> None:
        raise InvalidResponse("nonsense")

    async def told() -> dict[str, dict[str, Any]]:
        flags = dict.fromkeys(("is_sdown", "is_odown"), False)
        state = {"ip": "10.0.0.1", "port": 6379, "is_master": True, "num-other-sentinels": 1}
        return {"main": state | flags}

    monkeypatch.setattr(broken, "sentinel_masters", nonsense)
    monkeypatch.setattr(well, "sentinel_masters", told)
    with pytest.raises(RedisError):
        await pool.get_master_address()
    assert await pool.get_master_address() == ("10.0.0.1", 6379)
    await client.aclose()
