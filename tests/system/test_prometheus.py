"""A real Prometheus scrapes the admin port, and its own tool accepts the metrics."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from router.backends.child_process import free_port
from tests.integration.end_to_end.client import MLP, infer
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, settings


@pytest.fixture
def gateway(start_gateway: StartGateway, repository: Path) -> GatewayProcess:
    return start_gateway(settings(repository, model("mlp", pool={"min_replicas": 1})))


@pytest.fixture
def prometheus(gateway: GatewayProcess, tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes the gateway each second; its URL."""
    target = {"targets": [gateway.admin.removeprefix("http://")]}
    scrape = {"job_name": "gateway", "scrape_interval": "1s", "static_configs": [target]}
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


async def test_prometheus_scrapes_every_family(gateway: GatewayProcess, prometheus: str):
    async with aiohttp.ClientSession() as session:
        for hint in ("serverless", "pool"):
            await infer(session, gateway.url, "mlp", MLP, {"x-router-backend": hint})

        async def query(expression: str) -> list[dict[str, object]]:
            parameters = {"query": expression}
            url = f"{prometheus}/api/v1/query"
            async with session.get(url, params=parameters) as response:
                result: list[dict[str, object]] = (await response.json())["data"]["result"]
                return result

        async with asyncio.timeout(30):
            while True:
                try:
                    if len(await query('router_requests_total{model="mlp",outcome="ok"}')) == 2:
                        break
                except aiohttp.ClientConnectionError:
                    pass  # it is still starting
                await asyncio.sleep(0.2)
        (up,) = await query('up{job="gateway"}')
        assert up["value"][1] == "1"  # type: ignore[index]
        assert await query("histogram_quantile(0.5, router_request_duration_seconds_bucket)")
        assert await query('router_replicas_ready{model="mlp"} == 1')


async def test_promtool_accepts_the_metrics(gateway: GatewayProcess):
    async with aiohttp.ClientSession() as session:
        await infer(session, gateway.url, "mlp", MLP)
    metrics = await gateway.metrics()
    checked = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=metrics,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
