"""What backends are told of the client: X-Forwarded-For and -Proto, kept or made."""

from typing import Any

import pytest

from tests.fakes.upstreams import ok
from tests.integration.harness import Harness

CLAIMED: dict[str, Any] = {
    "x_forwarded_for": "203.0.113.7",
    "x_forwarded_proto": "https",
    "x_forwarded_host": "evil.example.com",
    "forwarded": "for=203.0.113.7",
    "x_real_ip": "203.0.113.7",
}
NAMES = {name.replace("_", "-") for name in CLAIMED}
MADE = {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}


def told(received) -> dict[str, str]:
    return {name: value for name, value in received.headers.items() if name in NAMES}


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
@pytest.mark.parametrize("place", ["pool", "serverless"])
async def test_the_gateway_makes_them_whatever_the_client_says(tmp_path, fast_path, place):
    server = {"forwarded": "make", "fast_path": fast_path}
    async with Harness(tmp_path, warm=[ok()], function=ok(), server=server) as gateway:
        for _ in range(3):
            await gateway.infer(x_router_backend=place)
            await gateway.infer(x_router_backend=place, **CLAIMED)
        long = await gateway.infer(b" " * 300_000 + b"{}", x_router_backend=place, **CLAIMED)
        received = (gateway.warm[0] if place == "pool" else gateway.function).received
    assert long.status == 200
    assert len(received) == 7
    assert [told(each) for each in received] == [MADE] * 7


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
async def test_by_default_they_are_kept_as_they_come(tmp_path, fast_path):
    server = {"fast_path": fast_path}
    async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
        for _ in range(2):
            await gateway.infer(**CLAIMED)
        await gateway.infer()
        *claimed, plain = [told(each) for each in gateway.warm[0].received]
    assert claimed == [{name.replace("_", "-"): value for name, value in CLAIMED.items()}] * 2
    assert plain == {}


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
async def test_a_rule_sees_what_is_made(tmp_path, fast_path):
    match = {"header": {"x-forwarded-for": "127.*"}}
    rules = [{"name": "local", "match": match, "route": "serverless"}]
    settings = {"forwarded": "make", "fast_path": fast_path}
    config = {"rules": rules}
    async with Harness(
        tmp_path, warm=[ok()], function=ok(), server=settings, config=config
    ) as gateway:
        replies = [await gateway.infer(**headers) for headers in ({}, CLAIMED, {}, CLAIMED)]
    assert {reply.decision for reply in replies} == {("serverless", "rule")}
