"""Adding up what requests leave behind: soon, in turns, and at once for who wants to read it."""

import asyncio
from random import Random
from time import perf_counter

import pytest
from prometheus_client import CollectorRegistry

from router.gateway.exchange import Telemetry
from router.gateway.shortcut.fast_tally import Tally
from router.telemetry.logs import AccessLog
from router.telemetry.metrics import Metrics
from router.telemetry.tracer import Tracer
from router.turns import TURN_S
from tests.fakes.builders import FakeClock

MODELS = 40


class Model:
    """Adds up for as long as a quarter of a turn."""

    def __init__(self) -> None:
        self.folds = 0

    def fold(self, tally: Tally) -> None:
        del tally
        self.folds += 1
        until = perf_counter() + TURN_S / 4
        while perf_counter() < until:
            pass


@pytest.fixture
def tally() -> Tally:
    log = AccessLog("off", lambda: 0.0)
    return Tally(
        Telemetry(metrics := Metrics(CollectorRegistry(), "0"), log, Tracer(metrics, Random())),
        FakeClock(),
    )


def waiting_in(tally: Tally) -> list[Model]:
    models = [Model() for _ in range(MODELS)]
    for model in models:
        tally.expect(model)
    return models


async def test_many_models_are_added_up_in_turns(tally: Tally) -> None:
    models = waiting_in(tally)
    done, most = 0, 0
    while done < MODELS:
        await asyncio.sleep(0)
        now = sum(model.folds for model in models)
        most, done = max(most, now - done), now

    assert most <= 5, "others had their turn in between"
    assert [model.folds for model in models] == [1] * MODELS


async def test_who_reads_finds_everything_added_up(tally: Tally) -> None:
    models = waiting_in(tally)
    while not models[0].folds:
        await asyncio.sleep(0)
    tally.metrics.catch_up()

    assert [model.folds for model in models] == [1] * MODELS


async def test_what_cannot_be_added_up_holds_nothing_else_up(tally: Tally) -> None:
    class Broken(Model):
        def fold(self, tally: Tally) -> None:
            raise ValueError

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    tally.expect(Broken())
    models = waiting_in(tally)
    while not complaints:
        await asyncio.sleep(0)
    another = Model()
    tally.expect(another)
    while not another.folds:
        await asyncio.sleep(0)

    assert [model.folds for model in models] == [1] * MODELS
