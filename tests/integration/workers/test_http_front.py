"""The HTTP front on real sockets: hostile requests, limits, cancellation and drain."""

import asyncio
import gzip
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.models import write_outer
from tests.fakes.oip import infer_json, json_input
from workers.codec import decode_request, encode_response
from workers.http_front import FrontLimits, HttpFront
from workers.http_server import server_runner
from workers.metrics import WorkerMetrics
from workers.protocol import InferResponse
from workers.service import Catalog

MAX_BODY = 200_000
Session = aiohttp.ClientSession


def slow_body(milliseconds: float, **fields: Any) -> bytes:
    return infer_json(json_input("x", "FP32", [1], [milliseconds]), **fields)


class Served:
    """A front on a loopback port with a client for it."""

    def __init__(self, front: HttpFront, session: Session, port: int) -> None:
        self.front = front
        self.session = session
        self.port = port

    async def post(self, model: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        path = f"/v2/models/{model}/infer"
        async with self.session.post(path, data=body, headers=headers) as response:
            return response.status, await response.json()

    async def status(self, model: str, body: Any) -> int:
        """The status alone: parsing a large answer would hold the loop that is under test."""
        async with self.session.post(f"/v2/models/{model}/infer", data=body) as response:
            await response.read()
            return response.status

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(path) as response:
            return response.status, await response.json()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def metric(self, name: str, **labels: str) -> float:
        async with self.session.get("/metrics") as response:
            families = text_string_to_metric_families(await response.text())
        samples = [s for family in families for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    async def raw(self, *parts: bytes) -> bytes:
        """Everything the server answers to bytes on a fresh connection, until it closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            with suppress(ConnectionError):  # the server may have reset it already
                await writer.wait_closed()


@asynccontextmanager
async def served(repository: Path, model: str, **changes: float) -> AsyncIterator[Served]:
    catalog = Catalog(repository, [model])
    await asyncio.to_thread(catalog.load, model)
    async with serving(catalog, **changes) as made:
        yield made


@asynccontextmanager
async def serving(catalog: Catalog, **changes: float) -> AsyncIterator[Served]:
    limits: dict[str, Any] = {"max_queue": 8, "max_body_bytes": MAX_BODY, "max_runs": 1, **changes}
    clock = asyncio.get_running_loop().time
    front = HttpFront(catalog, FrontLimits(**limits), WorkerMetrics(CollectorRegistry()), clock)
    runner = server_runner(front)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with Session(f"http://127.0.0.1:{port}") as session:
            yield Served(front, session, port)
    finally:
        await runner.cleanup()
        await front.close()


@pytest.fixture
async def slow(repository: Path) -> AsyncIterator[Served]:
    async with served(repository, "slow", max_queue=1) as made:
        yield made


@pytest.fixture
async def mlp(repository: Path) -> AsyncIterator[Served]:
    async with served(repository, "mlp") as made:
        yield made


ONES = infer_json(json_input("x", "FP32", [1, 32], [1] * 32))

HOSTILE: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("malformed JSON", b"{", {}, 400, "not valid JSON"),
    ("empty body", b"", {}, 400, "no body"),
    ("too large", b"x" * (MAX_BODY + 1), {}, 413, f"limit is {MAX_BODY}"),
    ("bomb", gzip.compress(bytes(10**7)), {"Content-Encoding": "gzip"}, 413, "inflates to more"),
    ("not gzip", ONES, {"Content-Encoding": "gzip"}, 400, "not valid gzip"),
    ("unknown coding", ONES, {"Content-Encoding": "br"}, 415, "'br' is not supported"),
    ("odd length header", ONES, {"Inference-Header-Content-Length": "-1"}, 400, "not a number"),
    ("length past the body", ONES, {"Inference-Header-Content-Length": "9999"}, 400, "has only"),
]


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"), [r[1:] for r in HOSTILE], ids=[r[0] for r in HOSTILE]
)
async def test_hostile_body_gets_a_clear_error(
    mlp: Served, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    got, answer = await mlp.post("mlp", body, **headers)
    assert got == status
    assert list(answer) == ["error"]
    assert message in answer["error"]
    assert (await mlp.post("mlp", ONES))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v2/models/nope", 404),
        ("GET", "/v2/models/mlp/versions/9", 404),
        ("GET", "/v2/models/mlp/infer", 405),
        ("DELETE", "/v2/models/mlp", 405),
        ("GET", "/v2/models/..%2Fmlp", 404),
    ],
)
async def test_wrong_path_or_verb_has_the_protocols_error(
    mlp: Served, method: str, path: str, status: int
) -> None:
    async with mlp.session.request(method, path) as response:
        assert response.status == status
        assert list(await response.json()) == ["error"]


async def test_declared_length_over_the_limit_is_refused_before_the_body(mlp: Served) -> None:
    head = b"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    answer = await mlp.raw(head, b"a" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"the body has 1000000000 bytes' in answer


async def test_chunked_body_over_the_limit_is_refused_where_it_passes_it(mlp: Served) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1000 + 1):
            yield b"x" * 1000

    status, answer = await mlp.post("mlp", chunks())
    assert status == 413
    assert "larger than the limit" in answer["error"]


async def test_bad_chunk_framing_is_refused(mlp: Served) -> None:
    head = b"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await mlp.raw(head, b"zz\r\nabc\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert list(json.loads(answer.split(b"\r\n\r\n")[1])) == ["error"]


async def test_long_header_is_refused_in_the_protocols_shape(mlp: Served) -> None:
    answer = await mlp.raw(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert list(json.loads(answer.split(b"\r\n\r\n")[1])) == ["error"]


async def test_no_content_type_is_needed_and_only_protocol_headers_are_added(mlp: Served) -> None:
    head = f"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ONES)}\r\n"
    answer = await mlp.raw(head.encode() + b"Connection: close\r\n\r\n" + ONES)
    lines = answer.split(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    assert lines[0] == "http/1.1 200 ok"
    names = {line.split(":")[0] for line in lines[1:]}
    assert b"aiohttp" not in answer
    assert names == {"content-type", "content-length", "date", "server", "connection"}


async def test_full_worker_refuses_by_the_head_and_recovers(slow: Served) -> None:
    async with asyncio.TaskGroup() as group:
        accepted = [group.create_task(slow.post("slow", slow_body(200))) for _ in range(2)]
        await slow.until(lambda: slow.front.in_flight == 2)
        status, answer = await slow.post("slow", slow_body(1))
    assert status == 503
    assert "worker is full (1 requests wait for 'slow')" in answer["error"]
    assert [task.result()[0] for task in accepted] == [200, 200]
    assert (await slow.post("slow", slow_body(1)))[0] == 200
    assert await slow.metric("worker_requests_total", code="503", model="slow") == 1
    assert await slow.metric("worker_requests_total", code="200", model="slow") == 3


async def test_clients_timeout_is_kept(slow: Served) -> None:
    busy = asyncio.create_task(slow.post("slow", slow_body(300)))
    await slow.until(lambda: slow.front.in_flight == 1)
    status, answer = await slow.post("slow", slow_body(1, parameters={"timeout": 20_000}))
    assert status == 504
    assert "timeout of 0.02 s" in answer["error"]
    assert (await busy)[0] == 200


async def test_client_that_goes_away_leaves_the_queue(slow: Served) -> None:
    busy = asyncio.create_task(slow.post("slow", slow_body(300)))
    await slow.until(lambda: slow.front.in_flight == 1)
    leaving = asyncio.create_task(slow.post("slow", slow_body(1)))
    await slow.until(lambda: slow.front.in_flight == 2)
    leaving.cancel()
    await asyncio.wait([leaving])
    await slow.until(lambda: slow.front.in_flight == 1)
    assert not busy.done()
    assert (await busy)[0] == 200
    assert await slow.metric("worker_requests_total", code="499", model="slow") == 1


async def test_drain_finishes_what_was_accepted_and_refuses_the_rest(slow: Served) -> None:
    accepted = asyncio.create_task(slow.post("slow", slow_body(300)))
    await slow.until(lambda: slow.front.in_flight == 1)
    drain = asyncio.create_task(slow.front.drain(10))
    await asyncio.sleep(0)
    assert (await slow.get("/v2/health/ready"))[0] == 503
    assert (await slow.get("/v2/models/slow/ready"))[0] == 503
    assert (await slow.get("/v2/health/live"))[0] == 200
    status, answer = await slow.post("slow", slow_body(1))
    assert (status, "draining" in answer["error"]) == (503, True)
    assert await slow.metric("worker_ready") == 0
    assert (await accepted)[0] == 200
    assert await drain is True


async def test_drain_gives_up_at_its_bound(slow: Served) -> None:
    accepted = asyncio.create_task(slow.post("slow", slow_body(400)))
    await slow.until(lambda: slow.front.in_flight == 1)
    assert await slow.front.drain(0.01) is False
    await accepted


def codec_seconds(body: bytes) -> float:
    """What decoding the request and encoding its tensor takes of the processor.

    Here and below the process's own time is measured, which others on the machine do not change.
    """
    started = time.process_time()
    request = decode_request(body, None, ())
    encode_response(request, InferResponse("single", "1", request.inputs))
    return time.process_time() - started


async def test_loop_answers_while_a_large_body_is_decoded(repository: Path) -> None:
    values = json.dumps([0.12345678] * 3_000_000).encode()
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1500000,2],"data":%b}]}' % values
    codec_s = await asyncio.to_thread(codec_seconds, body)
    async with served(repository, "single", max_body_bytes=100_000_000) as front:
        large = asyncio.create_task(front.status("single", io.BytesIO(body)))
        longest, probes = 0.0, 0
        while not large.done():
            started = time.process_time()
            await front.get("/v2/health/live")
            longest, probes = max(longest, time.process_time() - started), probes + 1
        assert await large == 200
    assert probes > 10
    # At once, the slower of decoding and encoding would take more than half of their time.
    assert longest < codec_s / 2


async def test_slow_body_is_given_up(repository: Path) -> None:
    async with served(repository, "mlp", body_timeout_s=0.05) as front:
        head = b"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"
        answer = await front.raw(head, b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'{"error":"the body did not arrive within 0.05 s"}' in answer


async def test_other_version_is_loaded_when_first_asked_for(mlp: Served) -> None:
    assert (await mlp.get("/v2/models/mlp/versions/1"))[1]["inputs"][0]["shape"] == [-1, 16]


async def test_unexpected_failure_is_logged_and_not_shown(
    mlp: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("workers.http_front.read_infer", fails)
    assert await mlp.post("mlp", ONES) == (500, {"error": "internal error"})
    assert "ZeroDivisionError: secret" in caplog.text
    assert await mlp.metric("worker_requests_total", code="500", model="mlp") == 1


async def test_unknown_models_do_not_become_labels(mlp: Served) -> None:
    for number in range(3):
        assert (await mlp.post(f"nope-{number}", ONES))[0] == 404
    assert await mlp.metric("worker_requests_total", code="404", model="") == 3


# -- small inferences of quick models ------------------------------------------------------------


def quick_body(count: int = 2) -> bytes:
    return infer_json(json_input("x", "FP32", [count, 2], [1.5] * 2 * count), id="a")


def post_of(body: bytes, model: str = "single") -> bytes:
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def learned(front: Served, model: str, body: bytes) -> None:
    """Have the front learn that the model is quick, if it may."""
    for _ in range(30):
        assert (await front.post(model, body))[0] == 200


@pytest.fixture
async def quick(repository: Path) -> AsyncIterator[Served]:
    async with served(repository, "single") as made:
        await learned(made, "single", quick_body())
        yield made


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on, nothing may wait for a run."""

    def forbid() -> None:
        monkeypatch.setattr("workers.http_front.HttpFront._run_request", None)

    return forbid


async def test_small_inferences_of_a_quick_model_are_answered_at_once(
    quick: Served, no_threads: Callable[[], None]
) -> None:
    before = await quick.metric("worker_requests_total", code="200", model="single")
    no_threads()
    status, answer = await quick.post("single", quick_body())
    assert (status, answer["id"], answer["outputs"][0]["data"]) == (200, "a", [1.5] * 4)
    status, answer = await quick.post("single", b"{")
    assert (status, "not valid JSON" in answer["error"]) == (400, True)
    assert await quick.metric("worker_requests_total", code="200", model="single") == before + 1
    assert await quick.metric("worker_requests_total", code="400", model="single") == 1
    statistics = (await quick.get("/v2/models/single/stats"))[1]["model_stats"][0]
    assert statistics["inference_stats"]["success"]["count"] == before + 1


async def test_both_ways_answer_alike(repository: Path) -> None:
    async with served(repository, "single") as front:
        answers = []
        for _ in range(2):
            async with front.session.post("/v2/models/single/infer", data=quick_body()) as found:
                names = {name.lower() for name in found.headers}
                answers.append((found.status, names, found.headers["server"], await found.read()))
            await learned(front, "single", quick_body())
        assert answers[0] == answers[1]


async def test_requests_in_one_segment_are_all_answered_in_order(quick: Served) -> None:
    ids = [f"r{number}" for number in range(4)]
    bodies = [infer_json(json_input("x", "FP32", [1, 2], [1, 2]), id=name) for name in ids]
    last = post_of(bodies[-1]).replace(b"Host: x", b"Host: x\r\nConnection: close")
    parts = b"".join(map(post_of, bodies[:-1]))
    answer = await quick.raw(post_of(bodies[0]), parts + last)
    found = [json.loads(part.split(b"HTTP/1.1")[0])["id"] for part in answer.split(b"\r\n\r\n")[1:]]
    assert found == ["r0", *ids]


async def test_a_timeout_counts_also_at_once(quick: Served, no_threads: Callable[[], None]) -> None:
    no_threads()
    body = infer_json(json_input("x", "FP32", [2, 2], [1.0] * 4), parameters={"timeout": 1})
    status, answer = await quick.post("single", body)
    assert (status, answer["error"]) == (504, "no answer within the timeout of 1e-06 s")


async def test_a_model_whose_values_decide_its_time_never_holds_the_loop(slow: Served) -> None:
    await learned(slow, "slow", slow_body(0))
    busy = asyncio.create_task(slow.post("slow", slow_body(300)))
    await slow.until(lambda: slow.front.in_flight == 1)
    assert (await slow.get("/v2/health/live"))[0] == 200
    assert not busy.done()
    assert (await busy)[0] == 200


async def test_large_outputs_are_written_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outer(tmp_path, "wide", columns=20_000)
    body = infer_json(json_input("x", "FP32", [1, 1], [0.5]))
    async with served(tmp_path, "wide") as front:
        await learned(front, "wide", body)
        monkeypatch.setattr("workers.http_front._run_at_once", lambda *_: 1 / 0)
        assert (await front.post("wide", body))[0] == 200


async def test_an_unexpected_failure_at_once_is_logged_and_not_shown(
    quick: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workers.http_front._run_at_once", lambda *_: 1 / 0)
    assert await quick.post("single", quick_body()) == (500, {"error": "internal error"})
    assert "ZeroDivisionError" in caplog.text


async def test_models_are_loaded_and_unloaded_when_told(repository: Path) -> None:
    async with serving(Catalog(repository)) as worker:
        assert await ready_models(worker) == set()
        assert await told(worker, "mlp", "load") == (200, {})
        assert await ready_models(worker) == {"mlp"}
        assert await worker.status("mlp", ONES) == 200
        assert await told(worker, "mlp", "unload") == (200, {})
        assert await ready_models(worker) == set()
        assert await worker.status("mlp", ONES) == 200  # which loads it again
        assert await ready_models(worker) == {"mlp"}
        status, error = await told(worker, "broken", "load")
        assert (status, "cannot be loaded" in error["error"]) == (500, True)
        status, error = await told(worker, "none", "load")
        assert (status, "unknown model" in error["error"]) == (404, True)


async def test_a_model_is_unloaded_while_it_runs_and_the_run_is_answered(repository: Path) -> None:
    async with serving(Catalog(repository)) as worker:
        await told(worker, "slow", "load")
        run = asyncio.create_task(worker.status("slow", slow_body(300)))
        await worker.until(lambda: worker.front.in_flight == 1)
        await told(worker, "slow", "unload")
        assert await ready_models(worker) == set()
        assert await run == 200


async def told(worker: Served, model: str, what: str) -> tuple[int, dict[str, Any]]:
    async with worker.session.post(f"/v2/repository/models/{model}/{what}") as response:
        return response.status, await response.json()


async def ready_models(worker: Served) -> set[str]:
    async with worker.session.post("/v2/repository/index") as response:
        return {one["name"] for one in await response.json() if one["state"] == "READY"}
