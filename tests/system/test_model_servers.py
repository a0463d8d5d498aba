"""Static pools in front of real MLServer and KServe processes, with the clients made for them.

The servers know their model as `doubler`; the gateway offers both under names of its own.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from router.backends.child_process import free_port
from tests.integration.end_to_end.gateway import GatewayProcess, running
from tests.system.model_servers import DATA, environment, kserve, mlserver
from tests.system.tools import run

X = np.array([[1.0, 2.0, 3.0]], np.float32)
SERVERS = ["mlserver", "kserve"]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("mlserver")
    with (
        mlserver(folder, free_port(), (free_port(), free_port())) as one,
        kserve(tmp_path_factory.mktemp("kserve"), free_port()) as other,
    ):
        yield {"mlserver": one, "kserve": other}


@pytest.fixture(scope="module", params=[True, False], ids=["fast path on", "fast path off"])
def gateway(
    request: pytest.FixtureRequest,
    servers: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    models = [
        {
            "name": f"on-{name}",
            "served_as": "doubler",
            "slo": {"latency_ms": 5000},
            "pool": {"kind": "static", "urls": [url], "health": {"interval": "100ms"}},
        }
        for name, url in servers.items()
    ]
    server = {"fast_path": request.param}
    yield from running(tmp_path_factory.mktemp("gateway"), {"server": server, "models": models})


def tensor(module: Any, *, binary: bool) -> Any:
    made = module.InferInput("x", list(X.shape), "FP32")
    made.set_data_from_numpy(X, binary_data=binary)
    return made


def infer(
    url: str, model: str, binary_in: bool, binary_out: bool, coding: str | None = None
) -> Any:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        # More than once on one connection: known heads take the gateway's shortcut.
        results = [
            client.infer(
                model,
                [tensor(triton, binary=binary_in)],
                outputs=[triton.InferRequestedOutput("y", binary_data=binary_out)],
                request_id="r-1",
                request_compression_algorithm=coding,
            )
            for _ in range(3)
        ]
    return results[-1]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("binary_out", [False, True], ids=["json out", "binary out"])
def test_tritons_client_with_json_and_no_content_type(
    gateway: GatewayProcess, servers: dict[str, str], server: str, binary_out: bool
):
    if server == "kserve":
        with pytest.raises(InferenceServerException, match="header is missing"):
            infer(servers[server], "doubler", binary_in=False, binary_out=binary_out)
    result = infer(gateway.url, f"on-{server}", binary_in=False, binary_out=binary_out)
    np.testing.assert_array_equal(result.as_numpy("y").reshape(X.shape), 2 * X)
    assert result.get_response()["id"] == "r-1"


@pytest.mark.parametrize("binary_out", [False, True], ids=["json out", "binary out"])
def test_tritons_client_with_binary_tensors(gateway: GatewayProcess, binary_out: bool):
    result = infer(gateway.url, "on-kserve", binary_in=True, binary_out=binary_out)
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)


def test_a_server_without_binary_tensors_says_so_itself(
    gateway: GatewayProcess, servers: dict[str, str]
):
    # It reports the same fault in two ways, with and without the content type that we fill in.
    for url, model, status in (
        (servers["mlserver"], "doubler", "422"),
        (gateway.url, "on-mlserver", "500"),
    ):
        with pytest.raises(InferenceServerException, match=status):
            infer(url, model, binary_in=True, binary_out=True)


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # Triton's way
@pytest.mark.parametrize(
    ("server", "binary"), [("mlserver", False), ("kserve", False), ("kserve", True)]
)
async def test_tritons_async_client(gateway: GatewayProcess, server: str, binary: bool):
    async with triton_aio.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        inputs = [tensor(triton_aio, binary=binary)]
        results = [await client.infer(f"on-{server}", inputs) for _ in range(3)]
    np.testing.assert_array_equal(results[-1].as_numpy("y").reshape(X.shape), 2 * X)


@pytest.mark.parametrize("coding", ["gzip"])
def test_compressed_json_passes_as_it_is(gateway: GatewayProcess, coding: str):
    result = infer(gateway.url, "on-mlserver", False, False, coding)
    np.testing.assert_array_equal(result.as_numpy("y").reshape(X.shape), 2 * X)


def test_kserves_client(gateway: GatewayProcess):
    output = run(
        environment("kserve") / "python", DATA / "kserve_client.py", gateway.url, "on-kserve"
    )
    found = json.loads(output.splitlines()[-1])
    assert found == {
        "live": True, "ready": True, "model_ready": True,
        "json": (2 * X).tolist(), "json_id": "r-1",
        "binary": (2 * X).tolist(), "binary_id": "r-1",
        "v1": (2 * X).tolist(), "v1_live": True, "v1_model_ready": True,
    }  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_what_clients_ask_before_they_infer(gateway: GatewayProcess, server: str):
    with triton.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        assert client.is_server_ready()
        assert client.is_model_ready(f"on-{server}")
        assert client.get_model_metadata(f"on-{server}")["name"] == "doubler"
        with pytest.raises(InferenceServerException, match="not configured"):
            client.get_model_metadata("doubler")


async def test_the_pool_is_measured_and_healthy(gateway: GatewayProcess):
    for server in SERVERS:
        infer(gateway.url, f"on-{server}", binary_in=False, binary_out=False)
        status = await gateway.status(f"on-{server}")
        assert [endpoint["state"] for endpoint in status["endpoints"]] == ["ready"]
        assert status["split"]["pool"] > 0
