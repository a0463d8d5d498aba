"""Two versions of a real model: one takes the other's place, some of its traffic, or a copy of it.

The second versions are the demo's magika with a changed constant, so that its answers differ, or
so that it fails for what the first one takes.
"""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fakes.models import write_slow
from tests.integration.end_to_end.client import slow
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, settings
from workers.demo.inputs import magika_input

DEMO = Path(__file__).parents[3] / ".demo" / "models" / "magika" / "1"
TEXTS = [bytes(f"# file {n}\n", "ascii") * 50 + Path(__file__).read_bytes()[n:] for n in range(8)]
WITHIN_S = 30.0


def changed_weights(graph: onnx.ModelProto) -> None:
    """The largest constant, one percent larger: the answers differ by a little."""
    weights = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weights) * np.float32(1.01)
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))


def takes_one_row(graph: onnx.ModelProto) -> None:
    """The answer's shape becomes a constant that only one row fits: more rows fail."""
    output = graph.graph.output[0]
    classes = output.type.tensor_type.shape.dim[1].dim_value
    producer = next(node for node in graph.graph.node if output.name in node.output)
    producer.output[list(producer.output).index(output.name)] = "before"
    shape = numpy_helper.from_array(np.array([1, classes], np.int64), "one_row")
    graph.graph.initializer.append(shape)
    graph.graph.node.append(helper.make_node("Reshape", ["before", "one_row"], [output.name]))
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT


def write_version(repository: Path, version: str, change: Callable[[Any], None] | None) -> None:
    assert DEMO.is_dir(), "the demo models are missing: `make test` builds them"
    folder = repository / "magika" / version
    shutil.copytree(DEMO, folder)
    if change is not None:
        loaded = onnx.load(DEMO / "model.onnx")
        change(loaded)
        onnx.checker.check_model(loaded)
        (folder / "model.onnx").write_bytes(loaded.SerializeToString())


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is the demo's, 2 answers otherwise, 3 fails for more than one row."""
    repository = tmp_path_factory.mktemp("versions")
    for version, change in (("1", None), ("2", changed_weights), ("3", takes_one_row)):
        write_version(repository, version, change)
    write_slow(repository, "slow", "1")
    write_slow(repository, "slow", "2", rounds_per_ms=70)
    return repository


def pool_of(name: str, version: str, **changes: Any) -> dict[str, Any]:
    """A model on a replica of its own that serves this version of it."""
    made = model(name, serverless=None, pool={"min_replicas": 1}, slo={"latency_ms": 5000})
    return {**made, "version": version, **changes}


def rows(*texts: bytes) -> dict[str, object]:
    arrays = [magika_input(text) for text in texts]
    ((name, first),) = arrays[0].items()
    stacked = np.concatenate([array[name] for array in arrays])
    data = stacked.ravel().tolist()
    tensor = {"name": name, "shape": list(stacked.shape), "datatype": "INT32", "data": data}
    assert first.dtype == np.int32
    return {"inputs": [tensor]}


async def ask(
    session: aiohttp.ClientSession, gateway: GatewayProcess, name: str, request: dict[str, object]
) -> tuple[int, str | None, Any]:
    """The status, the model that answered, and its document."""
    url = f"{gateway.url}/v2/models/{name}/infer"
    body = json.dumps(request).encode()
    headers = {"content-type": "application/json"}
    async with session.post(url, data=body, headers=headers) as response:
        text = await response.text()
        return response.status, response.headers.get("x-router-model"), json.loads(text)


async def canary_of(gateway: GatewayProcess) -> Any:
    (found,) = (await gateway.get("/v1/status"))["canaries"]
    return found


async def until(condition: Callable[[Any], bool], gateway: GatewayProcess) -> Any:
    """The status document, once it fulfils the condition."""
    async with asyncio.timeout(WITHIN_S):
        while not condition(document := await gateway.get("/v1/status")):
            await asyncio.sleep(0.05)
    return document


async def until_ready(gateway: GatewayProcess) -> None:
    await until(lambda found: all(m["replicas_ready"] == 1 for m in found["models"]), gateway)


@asynccontextmanager
async def traffic(session, gateway, name, request):
    """Some clients without a pause; yields the answers so far."""
    answers: list[tuple[int, str | None, Any]] = []
    stopped = asyncio.Event()

    async def client() -> None:
        while not stopped.is_set():
            answers.append(await ask(session, gateway, name, request))

    clients = [asyncio.create_task(client()) for _ in range(3)]
    try:
        yield answers
    finally:
        stopped.set()
        await asyncio.gather(*clients)


async def test_a_pool_rolls_to_another_version_without_a_failed_request(
    start_gateway: StartGateway, versions: Path
):
    gateway = start_gateway(settings(versions, pool_of("magika", "1")))
    await until_ready(gateway)
    async with (
        aiohttp.ClientSession() as session,
        traffic(session, gateway, "magika", rows(TEXTS[0])) as answers,
    ):
        async with asyncio.timeout(WITHIN_S):
            while len(answers) < 20:
                await asyncio.sleep(0.02)
            gateway.config["models"] = [pool_of("magika", "2")]
            gateway.write_config()
            while answers[-1][2].get("model_version") != "2":
                await asyncio.sleep(0.02)
            seen = len(answers)
            while len(answers) < seen + 20:
                await asyncio.sleep(0.02)
    assert Counter(status for status, _, _ in answers) == {200: len(answers)}
    by_version = Counter(document["model_version"] for _, _, document in answers)
    assert set(by_version) == {"1", "2"}
    # While one replica drains and the other is ready, both may answer; then only the new one.
    assert {document["model_version"] for _, _, document in answers[-10:]} == {"2"}


def canary(name: str, share: int = 50, **more: Any) -> list[dict[str, Any]]:
    rule = {"name": "canary", "match": {"model": name}, "route": "auto"}
    rollback = {"min_requests": 20, **more}
    return [{**rule, "canary": {"model": f"{name}-next", "share": share, "rollback": rollback}}]


async def test_a_version_that_fails_is_rolled_back(start_gateway: StartGateway, versions: Path):
    gateway = start_gateway(
        settings(
            versions,
            pool_of("magika", "1"),
            pool_of("magika-next", "3", served_as="magika"),
            rules=canary("magika"),
        )
    )
    await until_ready(gateway)
    async with aiohttp.ClientSession() as session:
        single = [await ask(session, gateway, "magika", rows(TEXTS[0])) for _ in range(80)]
        assert {status for status, _, _ in single} == {200}
        assert {model for _, model, _ in single} == {"magika", "magika-next"}
        assert (await canary_of(gateway))["state"] == "running"

        pairs = [await ask(session, gateway, "magika", rows(*TEXTS[:2])) for _ in range(200)]
        failed = [model for status, model, _ in pairs if status != 200]
        assert set(failed) == {"magika-next"}
        found = await canary_of(gateway)
        assert (found["state"], found["fault"]) == ("rolled_back", "errors")
        assert {model for _, model, _ in pairs[-50:]} == {"magika"}
        assert {status for status, _, _ in pairs[-50:]} == {200}
    assert "canary of rule canary is rolled back" in gateway.log


@pytest.mark.alone  # it compares latencies, of which each side needs enough within a time
async def test_a_slower_version_is_rolled_back(start_gateway: StartGateway, versions: Path):
    gateway = start_gateway(
        settings(
            versions,
            pool_of("slow", "1"),
            pool_of("slow-next", "2", served_as="slow"),
            rules=canary("slow", latency_margin=1, latency_percentile=50, confidence=0.99),
        )
    )
    await until_ready(gateway)
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(WITHIN_S):
            while (found := (await canary_of(gateway)))["state"] != "rolled_back":
                assert (await ask(session, gateway, "slow", slow(3)))[0] == 200
    assert (found["state"], found["fault"]) == ("rolled_back", "latency")


def largest_difference(versions: Path, text: bytes) -> float:
    """What ONNX Runtime itself says about versions 1 and 2."""
    outputs = []
    for version in ("1", "2"):
        session = onnxruntime.InferenceSession(
            versions / "magika" / version / "model.onnx", providers=["CPUExecutionProvider"]
        )
        outputs.append(session.run(None, dict(magika_input(text)))[0])
    return float(np.max(np.abs(outputs[0].astype(np.float64) - outputs[1])))


@pytest.mark.parametrize(
    ("tolerance", "result"), [(0.0, "mismatch"), (0.5, "match")], ids=["no tolerance", "ample"]
)
async def test_a_shadow_tells_how_far_the_answers_are_apart(
    start_gateway: StartGateway, versions: Path, tolerance: float, result: str
):
    rule = {"name": "shadow", "match": {"model": "magika"}, "route": "auto"}
    compare = {"sample": 1, "tolerance": tolerance}
    shadow = {"model": "magika-next", "share": 100, "max_in_flight": 20, "compare": compare}
    gateway = start_gateway(
        settings(
            versions,
            pool_of("magika", "1"),
            pool_of("magika-next", "2", served_as="magika"),
            rules=[{**rule, "shadow": shadow}],
        )
    )
    await until_ready(gateway)
    async with aiohttp.ClientSession() as session:
        for text in TEXTS:
            status, _, document = await ask(session, gateway, "magika", rows(text))
            assert (status, document["model_version"]) == (200, "1")
    expected = max(largest_difference(versions, text) for text in TEXTS)
    assert 0 < expected < 0.5

    def is_done(status: Any) -> bool:
        return bool(sum(status["shadows"][0]["comparisons"].values()) == len(TEXTS))

    (found,) = (await until(is_done, gateway))["shadows"]
    assert found["copies"]["ok"] == len(TEXTS)
    assert found["comparisons"][result] == len(TEXTS)
    assert found["max_difference"] == pytest.approx(expected, rel=1e-3)
    metrics = await gateway.metrics()
    sample = f'router_shadow_comparisons_total{{model="magika-next",result="{result}"}}'
    assert f"{sample} {len(TEXTS)}.0" in metrics
