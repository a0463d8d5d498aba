"""A backend's address that leads back to the gateway ends a request at once."""

import pytest

from tests.fakes.upstreams import ok
from tests.integration.harness import Harness


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "ordinary path"])
async def test_a_pool_that_is_the_gateway_itself(tmp_path, fast_path):
    async with Harness(tmp_path, warm=[ok()], server={"fast_path": fast_path}) as gateway:
        assert (await gateway.infer()).status == 200
        config = gateway.changed(
            pool={"urls": [gateway.url], "health": {"path": "/v2/health/live"}}
        )
        await gateway.write(config)
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        await gateway.until(lambda: gateway.pool.ready == 1)
        for number in range(2):
            reply = await gateway.infer(x_request_id=f"once-{number}")
            assert reply.status == 508
            assert "leads back here" in reply.json()["error"]
            # The third one is refused at its head, before the id in it is taken over.
            lines = await gateway.logged_times(f"once-{number}", 2)
            assert [line["status"] for line in lines] == [508, 508]


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "ordinary path"])
async def test_backends_learn_the_way(tmp_path, fast_path):
    async with Harness(
        tmp_path, warm=[ok()], function=ok(), server={"fast_path": fast_path}
    ) as gateway:
        for backend in ("pool", "pool", "serverless"):
            await gateway.infer(via="1.0 nginx", x_router_backend=backend)
        received = [*gateway.warm[0].received[-2:], *gateway.function.received]
        assert [one.headers["via"] for one in received] == ["1.0 nginx, 1.1 hybrid-router"] * 3
