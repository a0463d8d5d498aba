"""Many random faults, on each event loop: every call ends, nothing leaks, nothing is reported."""

import asyncio
import gc
import random
import warnings

import pytest
import uvloop

from router.domain.errors import AttemptError
from router.upstream.address import Address, parse_address
from router.upstream.client import Call, UpstreamClient
from router.upstream.connection_pool import UpstreamLimits
from tests.fakes.paced_clock import paced_clock
from tests.fakes.scripted_server import (
    Step,
    close,
    half_close,
    read_head,
    read_request,
    reset,
    scripted_server,
    send,
    send_in_pieces,
    until_peer_closes,
)
from tests.integration.upstream.conftest import OK, open_sockets
from tests.unit.upstream.answers import ANSWERS, BROKEN

CALLS = 200
PARALLEL = 20


def random_script(rng: random.Random) -> list[Step]:
    """A few exchanges that go well, then one that ends in some way at some byte."""
    script = [step for _ in range(rng.randrange(3)) for step in (read_request(), send(OK))]
    answer = rng.choice([rng.choice(ANSWERS).data, rng.choice(list(BROKEN.values()))])
    cut = answer[: rng.randrange(len(answer) + 1)]
    sizes = [rng.choice([1, 5, 10**6])]
    ending = rng.choice([close, reset, half_close, until_peer_closes])
    return [*script, rng.choice([read_request, read_head])(), send_in_pieces(cut, sizes), ending()]


async def call_once(client: UpstreamClient, address: Address, rng: random.Random) -> str:
    call = Call(
        rng.choice(["GET", "POST", "HEAD"]),
        "/",
        (),
        b"x" * rng.choice([0, 300, 200_000, 1_000_000]),
        is_idempotent=rng.random() < 0.5,
    )
    sending = asyncio.ensure_future(client.send(address, call, timeout_s=0.3))
    if rng.random() < 0.2:
        asyncio.get_running_loop().call_later(rng.random() * 0.02, sending.cancel)
    try:
        response = await sending
        if response.rest is not None and rng.random() < 0.5:
            await anext(response.rest, None)
        await response.aclose()
    except AttemptError as error:
        return type(error).__name__
    except asyncio.CancelledError:
        return "cancelled"
    return "answered"


async def storm(seed: int) -> list[str]:
    rng = random.Random(seed)
    outcomes: list[str] = []
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    limits = UpstreamLimits(buffer_bytes=4, idle_s=0.05, max_idle=3, stream_idle_s=0.2)
    scripts = [random_script(rng) for _ in range(CALLS * 2)]
    async with paced_clock() as clock, scripted_server(*scripts) as server:
        client = UpstreamClient(clock=clock, limits=limits)
        address = parse_address(server.url)

        for _ in range(CALLS // PARALLEL):
            calls = (call_once(client, address, rng) for _ in range(PARALLEL))
            outcomes.extend(await asyncio.gather(*calls))
        await client.close()
        assert client.stats() == {}
    gc.collect()
    assert complaints == []
    return outcomes


@pytest.mark.parametrize(
    ("loop_factory", "debug"),
    [
        (asyncio.new_event_loop, False),
        (asyncio.new_event_loop, True),
        (uvloop.new_event_loop, False),
    ],
    ids=["asyncio", "asyncio debug", "uvloop"],
)
def test_every_call_ends_and_no_socket_is_left(loop_factory, debug, caplog):
    before = open_sockets()
    with (
        warnings.catch_warnings(),
        asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner,
    ):
        warnings.simplefilter("error")
        outcomes = runner.run(asyncio.wait_for(storm(7), 40))
    assert len(outcomes) == CALLS
    assert {"answered", "cancelled", "ResponseLostError", "UpstreamBrokenError"} <= set(outcomes)
    gc.collect()
    assert open_sockets() <= before, "what others have left may go, nothing of this test may stay"
    told = [r for r in caplog.records if r.name == "asyncio" and "took" not in r.getMessage()]
    assert [record for record in told if record.levelname in {"WARNING", "ERROR"}] == []
