"""More calls than a platform allows: not sent, or learned from its refusals without a stampede."""

import asyncio
from pathlib import Path

from aiohttp import web

from tests.fakes.upstreams import ok
from tests.fakes.url_platform import UrlPlatform, running, serving
from tests.integration.harness import Harness

FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}


def answers(count: int) -> list[web.Response]:
    return [web.json_response({"outputs": []}) for _ in range(count)]


async def test_no_more_calls_are_in_flight_than_configured(tmp_path: Path) -> None:
    """200 at once to a platform that allows 20: the others wait their turn, none is refused."""
    platform = UrlPlatform(answers=answers(200), gate=asyncio.Event())
    async with running(platform):
        serverless = {
            "kind": "http_function",
            "url": platform.url,
            "price": FREE,
            "max_concurrency": 20,
            "queue": {"max_requests": 200},
        }
        async with Harness(tmp_path, model={"serverless": serverless}) as gateway:
            replies = [asyncio.create_task(gateway.infer()) for _ in range(200)]
            await platform.wait_for_calls(20)
            await gateway.until(lambda: gateway.in_flight >= 100)  # the client's own limit
            assert platform.gate is not None
            platform.gate.set()
            statuses = {reply.status for reply in await asyncio.gather(*replies)}
    assert statuses == {200}
    assert platform.most_in_flight == 20
    assert len(platform.calls) == 200


async def test_what_the_platform_does_not_take_spills_to_the_pool(tmp_path: Path) -> None:
    platform = UrlPlatform(answers=answers(200), gate=asyncio.Event())
    async with running(platform):
        serverless = {
            "kind": "http_function",
            "url": platform.url,
            "price": FREE,
            "max_concurrency": 20,
        }
        rules = [{"name": "all", "match": {}, "route": "auto"}]
        async with Harness(
            tmp_path,
            warm=[ok()],
            pool={"concurrency": 8},
            model={"serverless": serverless},
            config={"rules": rules},
        ) as gateway:
            full = [
                asyncio.create_task(gateway.infer(x_router_backend="serverless")) for _ in range(20)
            ]
            await platform.wait_for_calls(20)
            replies = [await gateway.infer() for _ in range(20)]
            assert platform.gate is not None
            platform.gate.set()
            await asyncio.gather(*full)
    assert {reply.status for reply in replies} == {200}
    assert {reply.decision[0] for reply in replies} == {"pool"}
    assert platform.most_in_flight == 20


class Throttling:
    """Refuses what is over its own limit, as a reserved concurrency does."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.in_flight = 0
        self.refusals = 0

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        if self.in_flight >= self.allowed:
            self.refusals += 1
            return web.Response(status=429)
        self.in_flight += 1
        try:
            await asyncio.sleep(0.005)  # the work of a call
            return web.json_response({"outputs": []})
        finally:
            self.in_flight -= 1


async def test_the_limit_is_learned_and_given_back(tmp_path: Path) -> None:
    """A platform that allows less than configured: refusals get rare, and end with the limit."""
    platform = Throttling(allowed=5)
    async with serving(platform.handle) as url:
        serverless = {
            "kind": "http_function",
            "url": url,
            "price": FREE,
            "max_concurrency": 50,
            "queue": {"max_requests": 500},
        }
        async with Harness(tmp_path, warm=[ok()], model={"serverless": serverless}) as gateway:

            async def burst() -> tuple[int, int]:
                before = platform.refusals
                replies = await asyncio.gather(
                    *(gateway.infer(x_router_backend="serverless") for _ in range(60))
                )
                assert {reply.status for reply in replies} == {200}
                return platform.refusals - before, gateway.runtime_function.limit.current

            first, learned = await burst()
            later = [await burst() for _ in range(4)]
            platform.allowed = 1000
            recovered = [(await burst())[1] for _ in range(12)]
    assert first >= 20
    assert learned < 20
    assert max(refused for refused, _ in later) < first / 2
    assert recovered[-1] > max(limit for _, limit in later)
