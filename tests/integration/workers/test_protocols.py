"""What clients of V1, of BF16 models and of classification get from the worker and the function."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton

from tests.fakes.models import write_bfloat, write_mlp
from tests.fakes.worker_process import WorkerProcess, running_worker
from workers.http_events import serve
from workers.service import Catalog

ROWS = [[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("protocols")
    write_mlp(root, "mlp", width=4, options={"labels": ["a", "b", "c", "d"]})
    write_bfloat(root, "bfloat")
    return root


@pytest.fixture(scope="module")
def worker(repository: Path) -> Iterator[WorkerProcess]:
    with running_worker(repository, "mlp") as running:
        yield running


@pytest.fixture(scope="module")
def expected(repository: Path) -> Any:
    model = Catalog(repository).load("mlp")
    return model.run({"x": np.array(ROWS, np.float32)})[0]


def asked(worker: WorkerProcess, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(worker.url + path, data, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_v1_client_gets_its_predictions(worker: WorkerProcess, expected: Any) -> None:
    for _ in range(12):  # also once the worker knows that the model is quick
        status, answer = asked(worker, "/v1/models/mlp:predict", {"instances": ROWS})
        assert status == 200
        np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5)
    assert asked(worker, "/v1/models") == (200, {"models": ["mlp"]})
    assert asked(worker, "/v1/models/mlp") == (200, {"name": "mlp", "ready": True})


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models/nope:predict", {"instances": ROWS}, 404),
        ("/v1/models/mlp:explain", {"instances": ROWS}, 404),
        ("/v1/models/mlp:predict", None, 405),
        ("/v1/models/mlp:predict", {"instances": [[1, 2]]}, 400),
        ("/v1/models/mlp:predict", {}, 400),
    ],
    ids=["another model", "another verb", "nothing posted", "a wrong shape", "no instances"],
)
def test_a_v1_client_is_told_what_is_wrong(
    worker: WorkerProcess, path: str, body: Any, status: int
) -> None:
    assert (asked(worker, path, body)[0], list(asked(worker, path, body)[1])) == (status, ["error"])


def test_a_function_speaks_v1_too(repository: Path, expected: Any) -> None:
    event = {
        "rawPath": "/v1/models/mlp:predict",
        "requestContext": {"http": {"method": "POST"}},
        "body": json.dumps({"instances": ROWS}),
    }
    answer = serve(Catalog(repository), event)
    assert answer["statusCode"] == 200
    predictions = json.loads(answer["body"])["predictions"]
    np.testing.assert_allclose(predictions, expected, rtol=1e-5)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritons_client_gets_classes_with_labels(
    worker: WorkerProcess, expected: Any, binary: bool
) -> None:
    x = triton.InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(np.array(ROWS, np.float32))
    asked_for = triton.InferRequestedOutput("y", binary_data=binary, class_count=2)
    with triton.InferenceServerClient(worker.authority) as client:
        for _ in range(12):
            found = client.infer("mlp", [x], outputs=[asked_for]).as_numpy("y")
            assert found.shape == (2, 2)
            for row, values in zip(found, expected, strict=True):
                best = int(np.argmax(values))
                text = row[0] if isinstance(row[0], str) else row[0].decode()
                assert text == f"{values[best]:f}:{best}:{'abcd'[best]}"


def test_tritons_client_speaks_bf16(repository: Path) -> None:
    values = np.array([1.5, -2.0, 0.0], ml_dtypes.bfloat16)
    x = triton.InferInput("x", [3], "BF16")
    x.set_data_from_numpy(values)
    with (
        running_worker(repository, "bfloat") as worker,
        triton.InferenceServerClient(worker.authority) as client,
    ):
        assert client.get_model_metadata("bfloat")["inputs"][0]["datatype"] == "BF16"
        assert client.get_model_config("bfloat")["input"][0]["data_type"] == "TYPE_BF16"
        for _ in range(12):
            found = client.infer("bfloat", [x]).as_numpy("y")
            np.testing.assert_array_equal(found.astype(np.float32), -values.astype(np.float32))
