"""What the answers of a function's environment tell about its start."""

from pathlib import Path

import pytest

from tests.fakes.models import write_identity
from tests.fakes.oip import infer_json, json_input
from workers.function_environment import FunctionEnvironment

BODY = infer_json(json_input("x", "FP32", [1, 3], [1.5, 2.0, -3.25]))
HEADERS = {"content-type": "application/json"}
PROBES = [
    "/v2/health/ready",
    "/v2/health/live",
    "/v2/models/echo/ready",
    "/v2/models/echo",
    "/health/readiness",
    "/",
]


@pytest.fixture
def environment(tmp_path: Path) -> FunctionEnvironment:
    write_identity(tmp_path, "echo")
    return FunctionEnvironment({"MODEL_REPOSITORY": str(tmp_path), "MODEL_NAME": "echo"})


def told(environment: FunctionEnvironment, verb: str, path: str) -> str | None:
    return environment.answer(verb, path, HEADERS, lambda: BODY).headers.get("x-cold-start")


def test_probes_before_it_do_not_take_the_cold_start_of_the_first_inference(
    environment: FunctionEnvironment,
) -> None:
    assert [told(environment, "GET", path) for path in PROBES] == [None] * len(PROBES)
    found = [told(environment, "POST", "/v2/models/echo/infer") for _ in range(2)]
    assert found == ["true", "false"]


def test_an_inference_that_fails_was_the_first_one_too(environment: FunctionEnvironment) -> None:
    found = [told(environment, "POST", f"/v2/models/{name}/infer") for name in ("other", "echo")]
    assert found == ["true", "false"]
