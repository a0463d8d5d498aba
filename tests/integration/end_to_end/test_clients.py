"""Unmodified Triton clients and the demo models, on both backends: equal to ONNX Runtime itself.

With the gateway's fast path and without it: clients see no difference.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.integration.end_to_end.gateway import GatewayProcess, running
from tests.integration.end_to_end.models import model, settings
from workers.demo.inputs import magika_input, minilm_input, textdet_input
from workers.demo.wordpiece import load_wordpiece

DEMO = Path(__file__).parents[3] / ".demo" / "models"
Arrays = Mapping[str, NDArray[Any]]


def demo_input(name: str) -> Arrays:
    match name:
        case "magika":
            return magika_input(Path(__file__).read_bytes())
        case "minilm":
            tokens = load_wordpiece(DEMO / "minilm/1/tokenizer.json")
            return minilm_input("How do I reset my password?", tokens)
        case _:
            return textdet_input(["HYBRID", "ROUTER"])


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "ordinary"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    assert DEMO.is_dir(), "the demo models are missing: `make test` builds them"
    models = [model(name, slo={"latency_ms": 20_000}) for name in ("magika", "minilm", "textdet")]
    server = {"backend_hint": "allow", "fast_path": request.param}
    config = settings(DEMO, *models, server=server)
    yield from running(tmp_path_factory.mktemp("clients"), config)


@pytest.fixture(scope="module", params=["magika", "minilm", "textdet"])
def demo(request: pytest.FixtureRequest) -> tuple[str, Arrays, Arrays]:
    """A demo model, an input for it, and the outputs of ONNX Runtime called directly."""
    inputs = demo_input(request.param)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        DEMO / request.param / "1/model.onnx", options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, dict(inputs)), strict=True))
    return request.param, inputs, expected


def tensors(client: Any, inputs: Arrays, *, binary: bool) -> list[Any]:
    kinds = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
    made = []
    for name, array in inputs.items():
        tensor = client.InferInput(name, list(array.shape), kinds[array.dtype.name])
        tensor.set_data_from_numpy(array, binary_data=binary)
        made.append(tensor)
    return made


def assert_equal(result: Any, expected: Arrays) -> None:
    for name, array in expected.items():
        # Batching may change the order of additions, so the last bits may differ.
        np.testing.assert_allclose(result.as_numpy(name), array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["serverless", "pool"])
@pytest.mark.parametrize("form", ["json", "binary", "gzip"])
def test_the_sync_client(
    gateway: GatewayProcess, demo: tuple[str, Arrays, Arrays], backend: str, form: str
):
    name, inputs, expected = demo
    outputs = [triton.InferRequestedOutput(o, binary_data=form != "json") for o in expected]
    compression = "gzip" if form == "gzip" else None
    with triton.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        result = client.infer(
            name,
            tensors(triton, inputs, binary=form != "json"),
            outputs=outputs,
            headers={"x-router-backend": backend},
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
    assert_equal(result, expected)


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # Triton's way
@pytest.mark.parametrize("backend", ["serverless", "pool"])
async def test_the_async_client(
    gateway: GatewayProcess, demo: tuple[str, Arrays, Arrays], backend: str
):
    name, inputs, expected = demo
    async with triton_aio.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        for binary in (False, True):
            result = await client.infer(
                name,
                tensors(triton_aio, inputs, binary=binary),
                headers={"x-router-backend": backend},
            )
            assert_equal(result, expected)


def test_what_clients_ask_before_they_infer(gateway: GatewayProcess):
    with triton.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("magika")
        assert not client.is_model_ready("unknown")
        assert client.get_server_metadata()["name"] == "hybrid-router"
        (tensor,) = client.get_model_metadata("magika")["inputs"]
        assert tensor == {"name": "bytes", "datatype": "INT32", "shape": [-1, 2048]}
        config = client.get_model_config("magika")
        assert config["input"][0]["data_type"] == "TYPE_INT32"
        assert client.get_inference_statistics("magika")["model_stats"][0]["name"] == "magika"
        index = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
        assert index == {"magika": "READY", "minilm": "READY", "textdet": "READY"}


def test_a_wrong_shape_is_explained(gateway: GatewayProcess):
    wrong = {"bytes": np.zeros((1, 7), np.int32)}
    with (
        triton.InferenceServerClient(gateway.url.removeprefix("http://")) as client,
        pytest.raises(InferenceServerException) as error,
    ):
        client.infer("magika", tensors(triton, wrong, binary=True))
    assert error.value.status() == "400"
    assert "bytes" in error.value.message()
    assert "2048" in error.value.message()
