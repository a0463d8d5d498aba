"""What travels between gateways with many models: what has changed, and all of it for the new."""

import time

import pytest

from router.signals.records import Publication
from router.signals.snapshot import ModelTotals
from tests.fakes.valkey import ValkeyProcess
from tests.integration.signals.gateways import Gateway, eventually, running
from tests.integration.signals.test_poisoned import counting_received
from tests.integration.signals.test_shared_state import VALID, next_flush, put_member

MODELS = [f"model-{number:04}" for number in range(1000)]
EXCHANGES = 20


def arrive(gateway: Gateway, *models: str) -> None:
    for model in models:
        gateway.book.model(model).arrived(1.0, 0.1, is_captive=False)


def knows(listener: Gateway, speaker: Gateway) -> bool:
    return listener.state.snapshot.peers.get(speaker.id) == speaker.book.totals()


async def received(server: ValkeyProcess, gateway: Gateway) -> float:
    """Bytes from the server for one exchange of it, with what others receive meanwhile."""
    before = gateway.state.flushes_ok
    with counting_received(server) as sent:
        await eventually(lambda: gateway.state.flushes_ok >= before + EXCHANGES)
    return sent[0] / (gateway.state.flushes_ok - before)


async def test_models_at_rest_cost_nothing_and_one_that_works_costs_one(
    valkey_server: ValkeyProcess,
) -> None:
    async with running(valkey_server.url, "a") as a, running(valkey_server.url, "b") as b:
        arrive(a, *MODELS)
        await eventually(lambda: knows(b, a))
        assert await received(valkey_server, b) < 2_000

        for _ in range(5):
            arrive(a, "model-0007")
            await next_flush(a)
        with counting_received(valkey_server) as sent:
            arrive(a, "model-0007")
            await eventually(lambda: knows(b, a))
        assert sent[0] < 20_000
        assert a.state.flushes_failed == b.state.flushes_failed == 0


async def test_a_gateway_that_comes_late_gets_everything(valkey_server: ValkeyProcess) -> None:
    async with running(valkey_server.url, "a") as a:
        arrive(a, *MODELS)
        for model in MODELS[:5]:
            await next_flush(a)
            arrive(a, model)
        async with running(valkey_server.url, "b") as b:
            await eventually(lambda: knows(b, a))


async def test_a_record_that_was_lost_is_written_again(valkey_server: ValkeyProcess) -> None:
    async with running(valkey_server.url, "a") as a, running(valkey_server.url, "b") as b:
        arrive(a, *MODELS[:5])
        await eventually(lambda: knows(b, a))
        with valkey_server.client() as client:
            client.flushall()
            client.script_flush()
        arrive(a, MODELS[6])
        await eventually(lambda: knows(b, a))


async def test_a_gateway_that_starts_again_is_not_taken_for_the_one_it_was(
    valkey_server: ValkeyProcess,
) -> None:
    async with running(valkey_server.url, "b") as b:
        for models in (MODELS[:5], MODELS[5:7]):
            async with running(valkey_server.url, "a") as a:
                arrive(a, *models)
                await eventually(lambda a=a: knows(b, a))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("odd", "is_believed"),
    [
        pytest.param({"head": "5", "base": "9"}, True, id="a whole from the future"),
        pytest.param({"head": "x" * 100_000}, True, id="a huge number"),
        pytest.param({"head": "1e3", "base": "0x10"}, True, id="numbers written oddly"),
        pytest.param({"head": "9" * 15, "base": "1"}, True, id="more changes than there can be"),
        pytest.param({"head": "9", "base": "5"}, False, id="changes that are not there"),
        pytest.param({"head": "2", "base": "1", "c2": "["}, False, id="a change that is none"),
        pytest.param({"head": "2", "base": "1", "c2": " " * 2**21}, False, id="a huge change"),
    ],
)
async def test_odd_numbers_and_changes_harm_nobody_else(
    valkey_server: ValkeyProcess, odd: dict[str, str], is_believed: bool
) -> None:
    """Where a number cannot be one, the record counts as one whose changes have no numbers."""
    async with running(valkey_server.url, "a") as a, running(valkey_server.url, "b") as b:
        arrive(b, "m")
        await eventually(lambda: knows(a, b))
        put_member(valkey_server, "odd", VALID | odd)
        with counting_received(valkey_server) as sent:
            await next_flush(a)
            await a.state._exchange(time.monotonic())
        assert ("odd" in a.peers) is is_believed
        assert sent[0] < 200_000
        assert knows(a, b)
        assert a.state.flushes_failed == 0


async def test_nothing_is_forgotten_that_could_not_be_told(valkey_server: ValkeyProcess) -> None:
    async with running(valkey_server.url, "a") as a, running(valkey_server.url, "b") as b:
        await eventually(lambda: knows(b, a))
        a.state._publish = lambda: Publication({"m": ModelTotals(1)}, {}, {})
        await eventually(lambda: "m" in b.state.snapshot.peers.get("a", {}))
        a.state._publish = lambda: Publication({}, {}, {})
        with valkey_server.client() as client:
            client.delete("test:gateway:a")
            client.set("test:gateway:a", "not a hash")
            await next_flush(a)
            assert client.type("test:gateway:a") == b"hash"
        assert a.state.flushes_failed == 0
        await eventually(lambda: "m" in b.state.snapshot.peers.get("a", {}))
