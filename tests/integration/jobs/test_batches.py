"""Batches through OpenAI's own client, which knows nothing of this gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from router.jobs.folder_objects import FolderObjects
from tests.fakes.upstreams import Answer, Gate, Received, ok
from tests.integration.harness import INFER, Harness

JOBS = {"jobs": {"directory": "jobs", "lease": "1s"}}
CHAT = "/v1/chat/completions"


async def echoes(received: Received) -> Answer:
    return Answer(body=b'{"said":' + received.body + b"}")


def line(number: int, url: str = CHAT, **more: Any) -> bytes:
    body = {"model": "m", "messages": [], "n": number} if url == CHAT else {"inputs": [number]}
    return json.dumps(
        {"custom_id": f"c{number}", "method": "POST", "url": url, "body": body, **more}
    ).encode()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Harness]:
    async with Harness(tmp_path, warm=[echoes], config=JOBS) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Harness) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="any", base_url=f"{gateway.url}/v1", max_retries=0
    ) as client:
        yield client


async def made(
    client: openai.AsyncOpenAI, lines: list[bytes], endpoint: Any = CHAT, window: Any = "24h"
) -> Any:
    file = await client.files.create(file=("in.jsonl", b"\n".join(lines)), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window=window, metadata={"a": "b"}
    )


async def ended(client: openai.AsyncOpenAI, batch_id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if batch.status in {"completed", "failed", "expired", "cancelled"}:
                return batch
            await asyncio.sleep(0.05)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]


@pytest.mark.parametrize("endpoint", [CHAT, INFER], ids=["OpenAI", "OIP"])
async def test_every_line_is_answered_once_and_bad_ones_are_told_by_number(client, endpoint):
    lines = [line(number, endpoint) for number in range(1, 31)]
    lines[4] = b"{not json"
    lines[9] = line(10, "/v1/embeddings")
    lines[14] = line(3, endpoint)  # an id for the second time
    lines[19] = b""
    lines[24] = line(25, endpoint, body=7)
    batch = await ended(client, (await made(client, lines, endpoint)).id)
    assert (batch.status, batch.request_counts.total) == ("completed", 29)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (25, 4)
    output = await lines_of(client, batch.output_file_id)
    bad = {5, 10, 15, 20, 25}
    assert [one["custom_id"] for one in output] == [f"c{n}" for n in range(1, 31) if n not in bad]
    for one in output:
        sent = json.loads(line(int(one["custom_id"][1:]), endpoint))["body"]
        assert one["response"]["status_code"] == 200
        assert one["response"]["body"] == {"said": sent}
        assert one["error"] is None
    errors = await lines_of(client, batch.error_file_id)
    assert [one["error"]["line"] for one in errors] == [5, 10, 15, 25]
    assert {one["error"]["code"] for one in errors} == {"invalid_line"}


async def test_lines_that_the_model_refuses_are_errors_with_their_answer(gateway, client):
    gateway.warm[0].behave = ok(b'{"error":"no"}', 400)
    batch = await ended(client, (await made(client, [line(1)])).id)
    assert (batch.output_file_id, batch.request_counts.failed) == (None, 1)
    (error,) = await lines_of(client, batch.error_file_id)
    assert error["response"] == {
        "status_code": 400, "request_id": error["response"]["request_id"], "body": {"error": "no"},
    }  # fmt: skip
    assert error["error"]["code"] == "request_failed"


async def test_files_are_listed_read_and_deleted(gateway, client):
    content = line(1) + b"\n"
    files = [
        await client.files.create(file=(f"{n}.jsonl", content), purpose="batch") for n in range(3)
    ]
    assert (files[0].bytes, files[0].filename) == (len(content), "0.jsonl")
    listed = [one.id async for one in client.files.list(limit=2)]
    assert listed == [one.id for one in reversed(files)]
    assert (await client.files.content(files[0].id)).content == content
    read = await gateway.request("GET", f"/v1/files/{files[0].id}/content")
    assert read.headers.getall("content-length") == [str(len(content))]
    assert (await client.files.delete(files[0].id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(files[0].id)


async def test_a_cancelled_batch_tells_what_was_answered(gateway, client):
    gate = gateway.warm[0].behave = Gate(echoes)
    # More than run at once, or all might be answered by the time that the rest are given up.
    batch = await made(client, [line(number) for number in range(1, 401)])
    await gateway.until(lambda: gate.waiting >= 1)
    assert (await client.batches.cancel(batch.id)).status == "cancelling"
    gate.opened.set()
    batch = await ended(client, batch.id)
    assert batch.status == "cancelled"
    errors = await lines_of(client, batch.error_file_id)
    assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
    assert batch.request_counts.completed + len(errors) == 400
    assert (await client.batches.cancel(batch.id)).status == "cancelled"


async def test_a_window_that_ends_ends_the_batch(gateway, client):
    gateway.warm[0].behave = Gate()
    batch = await ended(client, (await made(client, [line(1), line(2)], window="1s")).id)
    assert batch.status == "expired"
    errors = await lines_of(client, batch.error_file_id)
    assert {one["error"]["code"] for one in errors} == {"batch_expired"}


async def test_batches_are_listed_newest_first(client):
    batches = [await made(client, [line(1)]) for _ in range(3)]
    assert [one.id async for one in client.batches.list(limit=2)] == [
        one.id for one in reversed(batches)
    ]
    assert batches[0].metadata == {"a": "b"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"endpoint": "/v1/nowhere"}, "not part of the API"),
        ({"endpoint": "/v1/models"}, "not allowed here"),
        ({"endpoint": "/v2/repository/index"}, "one of inference"),
        ({"endpoint": "/v2/models/other/infer"}, "not configured"),
        ({"input_file_id": "file-none"}, "no file"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ],
)
async def test_what_cannot_be_a_batch_is_refused(client, change, told):
    file = await client.files.create(file=("a.jsonl", line(1)), purpose="batch")
    asked = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **change}
    with pytest.raises(openai.APIStatusError, match=told):
        await client.batches.create(**asked)


async def test_a_file_without_a_request_fails_its_batch(client):
    batch = await ended(client, (await made(client, [b"", b"  "])).id)
    assert batch.status == "failed"
    assert batch.errors.data[0].code == "empty_file"


async def test_a_file_that_is_read_cannot_be_deleted(gateway, client):
    gateway.warm[0].behave = Gate()
    batch = await made(client, [line(1)])
    with pytest.raises(openai.ConflictError):
        await client.files.delete(batch.input_file_id)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b"{}", 400),
        ({"content-type": "multipart/form-data"}, b"x", 400),
        ({"content-type": "multipart/form-data; boundary=b"}, b"nothing of a form", 400),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b--\r\n", 400),
    ],
)
async def test_what_is_no_form_is_refused(gateway, headers, body, status):
    assert (await gateway.request("POST", "/v1/files", body, headers)).status == status


async def test_limits_of_files(tmp_path):
    config = {"jobs": {**JOBS["jobs"], "max_file": "1KiB", "max_files": 1}}
    async with Harness(tmp_path, warm=[echoes], config=config) as gateway:
        url = f"{gateway.url}/v1"
        async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
            with pytest.raises(openai.APIStatusError) as too_long:
                await client.files.create(file=("a", b"x" * 1025), purpose="batch")
            assert too_long.value.status_code == 413
            with pytest.raises(openai.BadRequestError):
                await client.files.create(file=("a", b"x"), purpose="fine-tune")
            await client.files.create(file=("a", b"x"), purpose="batch")
            with pytest.raises(openai.RateLimitError):
                await client.files.create(file=("a", b"x"), purpose="batch")
        left = await asyncio.to_thread(lambda: [*(tmp_path / "jobs").rglob("*.part")])
        assert left == []


async def test_a_tenants_files_have_no_more_bytes_than_they_may(tmp_path):
    config = {"jobs": {**JOBS["jobs"], "max_bytes": "1MiB"}}
    async with Harness(tmp_path, warm=[echoes], config=config) as gateway:
        url = f"{gateway.url}/v1"
        async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
            first = await client.files.create(file=("a", b"x" * 600_000), purpose="batch")
            with pytest.raises(openai.RateLimitError, match="448576 bytes more"):
                await client.files.create(file=("a", b"x" * 600_000), purpose="batch")
            await client.files.delete(first.id)
            await client.files.create(file=("a", b"x" * 600_000), purpose="batch")


async def test_a_batch_goes_on_where_another_gateway_has_ended(tmp_path):
    gate = Gate(echoes)
    async with Harness(
        tmp_path, warm=[gate], server={"drain_timeout": "0s"}, config=JOBS
    ) as gateway:
        url = f"{gateway.url}/v1"
        async with openai.AsyncOpenAI(api_key="any", base_url=url) as client:
            batch = await made(client, [line(number) for number in range(1, 21)])
        await gateway.until(lambda: gate.waiting >= 1)
        await gateway.restart()
        gate.opened.set()
        async with openai.AsyncOpenAI(api_key="any", base_url=f"{gateway.url}/v1") as client:
            output = await lines_of(client, (await ended(client, batch.id)).output_file_id)
            assert [one["custom_id"] for one in output] == [f"c{n}" for n in range(1, 21)]


async def test_objects_that_are_not_kept_leave_nothing(tmp_path):
    objects = FolderObjects(tmp_path)
    await objects.open()
    async with objects.writing() as new:
        await new.write(b"a part")
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []
    name = await objects.keep(b"0123456789")
    assert await objects.read(name, 3, 4) == b"3456"
