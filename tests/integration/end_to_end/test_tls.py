"""Unmodified Triton clients over HTTPS, against several gateway processes."""

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from tests.fakes.certificates import make_certificate
from tests.integration.end_to_end.client import MLP, infer
from tests.integration.end_to_end.gateway import GatewayProcess, running
from tests.integration.end_to_end.models import model, settings, write_models
from tests.integration.end_to_end.test_traffic import until_ready

INPUT = np.linspace(-1, 1, 8, dtype=np.float32)[np.newaxis]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "gateway")


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[GatewayProcess]:
    repository = write_models(tmp_path_factory.mktemp("models"))
    config = settings(repository, model("mlp", pool={"min_replicas": 1}))
    tls = {"certificate": str(certificate[0]), "key": str(certificate[1])}
    config["server"] = {**config["server"], "processes": 2, "tls": tls}
    yield from running(tmp_path_factory.mktemp("gateway"), config)


def tensor(binary: bool) -> list[triton.InferInput]:
    made = triton.InferInput("x", list(INPUT.shape), "FP32")
    made.set_data_from_numpy(INPUT, binary_data=binary)
    return [made]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
async def test_clients_get_the_same_as_without_tls(
    gateway: GatewayProcess, certificate: tuple[Path, Path], binary: bool
):
    await until_ready(gateway, "mlp", 1)
    assert gateway.url.startswith("https://")
    place = gateway.url.removeprefix("https://")
    authority = str(certificate[0])
    with triton.InferenceServerClient(
        place, ssl=True, ssl_context_factory=lambda: ssl.create_default_context(cafile=authority)
    ) as client:
        assert client.is_server_live()
        answers = [client.infer("mlp", tensor(binary)).as_numpy("y") for _ in range(3)]
    async with triton_aio.InferenceServerClient(
        place, ssl=True, ssl_context=ssl.create_default_context(cafile=authority)
    ) as aio:
        other = (await aio.infer("mlp", tensor(binary))).as_numpy("y")
    np.testing.assert_allclose(answers, [other] * 3, rtol=1e-5)


async def test_a_renewed_certificate_reaches_every_process(
    gateway: GatewayProcess, certificate: tuple[Path, Path], tmp_path: Path
):
    context = ssl.create_default_context(cafile=str(certificate[0]))
    old = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=old) as session:
        assert (await infer(session, gateway.url, "mlp", MLP)).status == 200
        renewed = make_certificate(tmp_path, "renewed")
        for target, source in zip(certificate, renewed, strict=True):
            shutil.copy(source, target)
        async with (
            aiohttp.ClientSession() as admin,
            admin.post(gateway.admin + "/v1/reload") as reply,
        ):
            assert reply.status == 200
        assert (await infer(session, gateway.url, "mlp", MLP)).status == 200, "it is kept"
    trusting = ssl.create_default_context(cafile=str(renewed[0]))
    for _ in range(12):
        # A session each: its end waits for its connection's, which `force_close` does not; left to
        # the collector, the socket's warning would fail whichever test runs by then.
        new = aiohttp.TCPConnector(ssl=trusting)
        async with aiohttp.ClientSession(connector=new) as session:
            assert (await infer(session, gateway.url, "mlp", MLP)).status == 200
