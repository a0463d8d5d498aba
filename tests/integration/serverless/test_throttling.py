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
            await gateway.until(lambda: gateway.in_flight == 200)
            assert len(platform.calls) == 20
            assert platform.gate is not None
            platform.gate.set()
            statuses = {reply.status for reply in await asyncio.gather(*replies)}
    assert statuses == {200}
    assert platform.most_in_flight == 20
    assert len(platform.calls) == 200


async def test_what_the_platform_does_not_take_spills_to_the_pool(tmp_path: Path) -> None:
    """200 at once, and a pool that takes 8: no more than 20 calls are in flight, none is lost."""
    platform = UrlPlatform(answers=answers(200), gate=asyncio.Event())
    async with running(platform):
        serverless = {
            "kind": "http_function",
            "url": platform.url,
            "price": FREE,
            "max_concurrency": 20,
            "queue": {"max_requests": 200},
        }
        async with Harness(
            tmp_path,
            warm=[ok()],
            pool={"concurrency": 8, "queue": {"max_requests": 200}},
            model={"serverless": serverless},
        ) as gateway:
            full = [
                asyncio.create_task(gateway.infer(x_router_backend="serverless")) for _ in range(20)
            ]
            await platform.wait_for_calls(20)
            replies = await asyncio.gather(*(gateway.infer() for _ in range(180)))
            assert platform.gate is not None
            platform.gate.set()
            await asyncio.gather(*full)
    assert {reply.status for reply in replies} == {200}
    assert {reply.decision[0] for reply in replies} == {"pool"}
    assert platform.most_in_flight == 20


async def test_who_cannot_wait_for_its_turn_is_told_by_its_deadline(tmp_path: Path) -> None:
    """200 at once to a platform that allows 20 and is slow: 180 end in time, 20 are answered."""
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
            served = [asyncio.create_task(gateway.infer()) for _ in range(20)]
            await platform.wait_for_calls(20)
            clock = asyncio.get_running_loop().time
            started = clock()
            late = await asyncio.gather(
                *(gateway.infer(x_router_deadline_ms="300") for _ in range(180))
            )
            took_s = clock() - started
            assert platform.gate is not None
            platform.gate.set()
            answered = await asyncio.gather(*served)
    assert {reply.status for reply in late} == {504}
    assert took_s < 3.0
    assert {reply.status for reply in answered} == {200}
    assert (platform.most_in_flight, len(platform.calls)) == (20, 20)


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


class Reserved:
    """Says how long to stay away after each refusal, and notes who does not."""

    def __init__(self, refuse: int) -> None:
        self.left = refuse
        self.closed_until = 0.0
        self.calls = 0
        self.early = 0

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        self.calls += 1
        now = asyncio.get_running_loop().time()
        self.early += now < self.closed_until
        if self.left:
            self.left -= 1
            self.closed_until = now + 1.0
            return web.Response(status=429, headers={"retry-after": "1"})
        return web.json_response({"outputs": []})


async def test_a_pause_that_the_platform_asks_for_is_kept_and_the_requests_wait_for_its_end(
    tmp_path: Path,
) -> None:
    platform = Reserved(refuse=1)
    async with serving(platform.handle) as url:
        serverless = {"kind": "http_function", "url": url, "price": FREE, "max_concurrency": 50}
        async with Harness(tmp_path, model={"serverless": serverless}) as gateway:
            first = asyncio.create_task(gateway.infer(x_request_id="first"))
            await gateway.until(lambda: bool(gateway.runtime_function.queue.waiters))
            told = await gateway.status()
            late = await gateway.infer(x_router_deadline_ms="100")
            replies = await asyncio.gather(first, *(gateway.infer() for _ in range(20)))
            line = await gateway.logged("first")
    assert {reply.status for reply in replies} == {200}
    assert (platform.early, platform.calls) == (0, 22)
    assert told["serverless"]["breaker_open"] is True
    assert late.status == 503, "it could not have come in time"
    assert late.headers["retry-after"] in {"1", "2"}
    assert line["attempts"] == 2


async def test_requests_wait_for_a_circuit_that_closes_in_time(tmp_path: Path) -> None:
    """Five failures open it for a second; then one request tries, and the rest follow."""
    platform = UrlPlatform(answers=[web.Response(status=502) for _ in range(5)] + answers(10))
    async with running(platform):
        serverless = {"kind": "http_function", "url": platform.url, "price": FREE}
        model = {"serverless": serverless, "attempts": 1}
        async with Harness(tmp_path, model=model) as gateway:
            failed = [await gateway.infer() for _ in range(5)]
            replies = await asyncio.gather(*(gateway.infer() for _ in range(10)))
    assert {reply.status for reply in failed} == {502}
    assert {reply.status for reply in replies} == {200}
    assert len(platform.calls) == 15
