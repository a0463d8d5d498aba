"""The Lambda front: the same bytes as the HTTP front, from a process that loads no server."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.oip import binary_input, event_body, http_event, infer_json, json_input
from tests.fakes.worker_process import WorkerProcess
from workers.compression import compress
from workers.http_events import serve
from workers.service import Catalog

X = np.random.default_rng(7).standard_normal((2, 32)).astype(np.float32)
HEAD = infer_json(binary_input("x", "FP32", [2, 32], X.nbytes), id="7")
JSON_BODY = infer_json(json_input("x", "FP32", [2, 32], X.ravel().tolist()))
BINARY_OUT = infer_json(
    json_input("x", "FP32", [2, 32], X.tolist()), parameters={"binary_data_output": True}
)
LENGTH = {"inference-header-content-length": str(len(HEAD))}
INFER = "/v2/models/mlp/infer"

Request = tuple[str, str, bytes | None, Mapping[str, str]]
REQUESTS: dict[str, Request] = {
    "server": ("GET", "/v2", None, {}),
    "live": ("GET", "/v2/health/live", None, {}),
    "ready": ("GET", "/v2/health/ready", None, {}),
    "models": ("GET", "/v2/models", None, {}),
    "metadata": ("GET", "/v2/models/mlp", None, {}),
    "config": ("GET", "/v2/models/mlp/versions/2/config", None, {}),
    "model ready": ("GET", "/v2/models/mlp/ready", None, {}),
    "unknown model": ("GET", "/v2/models/nope", None, {}),
    "unknown path": ("GET", "/v3", None, {}),
    "wrong verb": ("DELETE", INFER, None, {}),
    "JSON": ("POST", INFER, JSON_BODY, {}),
    "JSON, binary out": ("POST", INFER, BINARY_OUT, {}),
    "binary": ("POST", INFER, HEAD + X.tobytes(), LENGTH),
    "raw": ("POST", INFER, X.tobytes(), {"inference-header-content-length": "0"}),
    "gzip": ("POST", INFER, compress(JSON_BODY, "gzip"), {"content-encoding": "gzip"}),
    "deflate of binary": (
        "POST",
        INFER,
        compress(HEAD + X.tobytes(), "deflate"),
        {"content-encoding": "deflate", **LENGTH},
    ),
    "compressed answer": ("POST", INFER, JSON_BODY, {"accept-encoding": "gzip"}),
    "other version": ("POST", "/v2/models/mlp/versions/1/infer", JSON_BODY, {}),
    "malformed": ("POST", INFER, b"{", {}),
    "empty": ("POST", INFER, b"", {}),
    "unknown coding": ("POST", INFER, JSON_BODY, {"content-encoding": "br"}),
}
COMPARED = ("content-type", "content-encoding", "inference-header-content-length")


@pytest.fixture(scope="module")
def catalog(repository: Path) -> Catalog:
    catalog = Catalog(repository, ["mlp"])
    catalog.load("mlp")
    return catalog


def over_http(worker: WorkerProcess, request: Request) -> tuple[int, dict[str, str], bytes]:
    verb, path, body, headers = request
    connection = http.client.HTTPConnection(worker.authority, timeout=10)
    try:
        connection.request(verb, path, body, dict(headers))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, {n: found[n] for n in COMPARED if n in found}, response.read()
    finally:
        connection.close()


def over_event(catalog: Catalog, request: Request) -> tuple[int, dict[str, str], bytes]:
    verb, path, body, headers = request
    answer = serve(catalog, http_event(verb, path, body, dict(headers)))
    return answer["statusCode"], answer["headers"], event_body(answer)


@pytest.mark.parametrize("name", REQUESTS)
def test_same_bytes_as_over_http(mlp_worker: WorkerProcess, catalog: Catalog, name: str) -> None:
    assert over_event(catalog, REQUESTS[name]) == over_http(mlp_worker, REQUESTS[name])


SCRIPT = """
import json, sys
from workers.lambda_handler import handler
before = "onnxruntime" in sys.modules
answers = [handler(event, None) for event in json.load(sys.stdin)]
heavy = {"aiohttp", "redis", "prometheus_client", "asyncio", "router", "workers.http_front"}
json.dump({"answers": answers, "heavy": sorted(heavy & set(sys.modules))}, sys.stdout)
"""


def run_handler(repository: Path, events: list[Any], **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(events),
        env={**os.environ, "MODEL_REPOSITORY": str(repository), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("environment", [{"MODEL_NAME": "mlp"}, {}], ids=["one model", "all"])
def test_handler_answers_without_any_server_loaded(
    repository: Path, environment: dict[str, str]
) -> None:
    result = run_handler(repository, [http_event("POST", INFER, JSON_BODY)], **environment)
    assert result["answers"][0]["statusCode"] == 200
    assert result["heavy"] == []


def test_broken_model_fails_the_init_with_its_reason(repository: Path) -> None:
    assert "model.onnx cannot be loaded" in run_handler(repository, [], MODEL_NAME="broken")


def test_broken_model_loaded_lazily_is_an_error_and_not_a_crash(repository: Path) -> None:
    events = [http_event("POST", f"/v2/models/{m}/infer", JSON_BODY) for m in ("broken", "mlp")]
    answers = run_handler(repository, events)["answers"]
    assert [answer["statusCode"] for answer in answers] == [500, 200]
