"""The unmodified Triton client, sync and aio, against the worker: equal to onnxruntime itself."""

import urllib.request
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.fakes.worker_process import WorkerProcess

VALUES: Mapping[str, Any] = {
    "flag": np.array([[True, False]]),
    "half": np.array([[1.5, -2]], np.float16),
    "real": np.array([[np.nan, 3e38]], np.float32),
    "wide": np.array([[1e300, -0.0]], np.float64),
    "small": np.array([[-128, 127]], np.int8),
    "count": np.array([[0, 2**64 - 1]], np.uint64),
    "text": np.array([["é", ""]], dtype=object),
}
DATATYPES = {
    "flag": "BOOL",
    "half": "FP16",
    "real": "FP32",
    "wide": "FP64",
    "small": "INT8",
    "count": "UINT64",
    "text": "BYTES",
}
CODINGS = [None, "gzip", "deflate"]
COMBINATIONS = list(product([True, False], [True, False], CODINGS))
IDS = [
    f"{'binary' if i else 'json'} in, {'binary' if o else 'json'} out, {c or 'plain'}"
    for i, o, c in COMBINATIONS
]


def direct(repository: Path, name: str, version: str, feeds: Mapping[str, Any]) -> list[Any]:
    path = repository / name / version / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    results: list[Any] = session.run(None, dict(feeds))
    return results


def mlp_feed(width: int = 32, rows: int = 2) -> Any:
    return np.random.default_rng(7).standard_normal((rows, width)).astype(np.float32)


def infer_input(module: Any, name: str, datatype: str, array: Any, *, binary: bool) -> Any:
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.fixture
def client(mlp_worker: WorkerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(mlp_worker.authority) as made:
        yield made


@pytest.mark.parametrize(("binary_in", "binary_out", "coding"), COMBINATIONS, ids=IDS)
def test_sync_client_gets_what_onnxruntime_gives(
    client: Any, repository: Path, binary_in: bool, binary_out: bool, coding: str | None
) -> None:
    x = mlp_feed(rows=64)
    result = client.infer(
        "mlp",
        [infer_input(triton, "x", "FP32", x, binary=binary_in)],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary_out)],
        request_id="r-7",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert np.array_equal(result.as_numpy("y"), direct(repository, "mlp", "2", {"x": x})[0])
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("r-7", "2")
    assert ("data" in response["outputs"][0]) is not binary_out


@pytest.mark.parametrize(("binary_in", "binary_out", "coding"), COMBINATIONS, ids=IDS)
async def test_aio_client_gets_what_onnxruntime_gives(
    mlp_worker: WorkerProcess,
    repository: Path,
    binary_in: bool,
    binary_out: bool,
    coding: str | None,
) -> None:
    x = mlp_feed()
    async with triton_aio.InferenceServerClient(mlp_worker.authority) as client:
        result = await client.infer(
            "mlp",
            [infer_input(triton_aio, "x", "FP32", x, binary=binary_in)],
            outputs=[triton_aio.InferRequestedOutput("y", binary_data=binary_out)],
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
    assert np.array_equal(result.as_numpy("y"), direct(repository, "mlp", "2", {"x": x})[0])


def test_without_outputs_the_client_expects_binary(client: Any, repository: Path) -> None:
    x = mlp_feed()
    result = client.infer("mlp", [infer_input(triton, "x", "FP32", x, binary=False)])
    assert result.get_response()["outputs"][0]["parameters"]["binary_data_size"] == x.nbytes
    assert np.array_equal(result.as_numpy("y"), direct(repository, "mlp", "2", {"x": x})[0])


def test_older_version_is_served_when_asked_for(client: Any, repository: Path) -> None:
    x = mlp_feed(16)
    tensor = infer_input(triton, "x", "FP32", x, binary=True)
    result = client.infer("mlp", [tensor], model_version="1")
    assert np.array_equal(result.as_numpy("y"), direct(repository, "mlp", "1", {"x": x})[0])


def test_every_datatype_survives(types_worker: WorkerProcess) -> None:
    inputs = [
        # JSON and binary tensors in one message; NaN and half floats have no JSON form.
        infer_input(triton, n, DATATYPES[n], v, binary=n in ("half", "real", "small", "text"))
        for n, v in VALUES.items()
    ]
    with triton.InferenceServerClient(types_worker.authority) as client:
        result = client.infer("types", inputs)
    for name, value in VALUES.items():
        got = result.as_numpy(f"{name}_out")
        if name == "text":
            assert [[e.decode() for e in row] for row in got] == value.tolist()
        else:
            np.testing.assert_array_equal(got, value)
            assert got.dtype == value.dtype


def test_raw_tensor_body_is_the_input(mlp_worker: WorkerProcess, client: Any) -> None:
    # tritonclient cannot send such a body, so this one request is made without it.
    x = mlp_feed()
    body, headers = x.tobytes(), {"Inference-Header-Content-Length": "0"}
    request = urllib.request.Request(
        f"{mlp_worker.url}/v2/models/mlp/infer", data=body, headers=headers
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        length = int(response.headers["Inference-Header-Content-Length"])
        raw = response.read()[length:]
    expected = client.infer("mlp", [infer_input(triton, "x", "FP32", x, binary=True)])
    assert raw == expected.as_numpy("y").tobytes()


def test_endpoints_the_clients_look_at(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.is_model_ready("mlp", "1")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("mlp")["versions"] == ["1", "2"]
    assert client.get_model_config("mlp")["max_batch_size"] == 16
    index = client.get_model_repository_index()
    assert {"name": "mlp", "version": "2", "state": "READY", "reason": ""} in index


def test_statistics_count_what_was_asked(client: Any) -> None:
    def rows() -> int:
        return int(client.get_inference_statistics("mlp")["model_stats"][0]["inference_count"])

    before = rows()
    client.infer("mlp", [infer_input(triton, "x", "FP32", mlp_feed(rows=3), binary=True)])
    assert rows() == before + 3


REFUSED: list[tuple[str, str, Any, str]] = [
    ("unknown model", "nope", mlp_feed(), r"\[404\].*unknown model 'nope'"),
    ("wrong width", "mlp", mlp_feed(31), r"\[400\].*expected shape \[-1, 32\].*got \[2, 31\]"),
    ("wrong rank", "mlp", mlp_feed()[0], r"\[400\].*got \[32\]"),
    ("body over the limit", "mlp", mlp_feed(rows=9000), r"\[413\].*limit is 1000000"),
]


@pytest.mark.parametrize(
    ("model", "x", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_client_shows_the_reason_of_a_refusal(
    client: Any, model: str, x: Any, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message):
        client.infer(model, [infer_input(triton, "x", "FP32", x, binary=True)])
