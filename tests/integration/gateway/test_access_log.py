"""What the access log says of a request, whichever way it takes."""

from typing import Any

import pytest

from tests.fakes.upstreams import ok
from tests.integration.harness import Harness

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


async def lines(gateway: Harness, name: str = "r", **headers: str) -> list[dict[str, Any]]:
    """What is logged of a head that is new, and of another that is like it."""
    ids = [f"{name}-{number}" for number in (1, 2)]
    for request_id in ids:
        await gateway.infer(b"{}", x_request_id=request_id, **headers)
    return [await gateway.logged(request_id) for request_id in ids]


@pytest.mark.parametrize("where", ["pool", "serverless"])
async def test_the_trace_is_logged(tmp_path, where):
    async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
        for line in await lines(gateway, traceparent=TRACEPARENT, x_router_backend=where):
            assert (line["backend"], line["trace_id"]) == (where, TRACE)
        for line in await lines(gateway, "odd", traceparent="00-odd", x_router_backend=where):
            assert line["trace_id"] is None


async def test_a_warm_request_costs_the_seconds_of_its_slot(tmp_path):
    pool = {"price_per_replica_hour": 36, "concurrency": 4}
    async with Harness(tmp_path, warm=[ok()], pool=pool) as gateway:
        for line in await lines(gateway):
            assert line["cost_usd"] == pytest.approx(line["total_ms"] * 1e-5 / 4, rel=0.5)
