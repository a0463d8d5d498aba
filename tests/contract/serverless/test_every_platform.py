"""One suite for all platforms: same requests, same answers, cold starts told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.backends.serverless.function import Function
from tests.contract.serverless.cases import CASES, JSON_BODY
from tests.contract.serverless.platforms import EVERYWHERE, KEYS
from tests.contract.serverless.running import call, function_of
from tests.fakes.models import write_identity


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    write_identity(repository, "echo")
    return repository


@pytest.fixture(params=list(EVERYWHERE.values()), ids=list(EVERYWHERE))
async def function(
    request: pytest.FixtureRequest,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Function]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    start = request.param
    async with start(models, tmp_path) as settings, function_of(settings, tmp_path) as function:
        yield function


async def check_all_cases(function: Function) -> None:
    """Every case against one function; a failure names its case."""
    for name, case in CASES.items():
        response = await call(function, case.body, **case.facts)
        assert response.status == case.status, (name, response.body)
        assert case.check(response), (name, response.body)


async def check_cold_start(function: Function) -> None:
    """The first answer is cold and says how long it took, the second is not."""
    first, second = [await call(function, JSON_BODY) for _ in range(2)]
    assert (first.cold_start, second.cold_start) == (True, False)
    assert first.init_s is not None
    assert 0 < first.init_s < 30


async def test_the_answers_are_the_models(function: Function) -> None:
    await check_all_cases(function)


async def test_a_cold_start_is_told(function: Function) -> None:
    await check_cold_start(function)


async def test_the_calls_are_counted_and_paid(function: Function) -> None:
    for _ in range(3):
        await call(function, JSON_BODY)
    quantiles: list[Any] = function.init_times.quantiles([0.5, 0.99])
    assert (function.calls, function.cold_calls, function.in_flight) == (3, 1, 0)
    assert None not in quantiles
