"""What every place of objects promises, asked of each of them."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from botocore.session import Session
from obstore.store import MemoryStore

from router.backends.child_process import free_port
from router.domain.errors import NotDurableError, NotFoundError
from router.jobs.bucket_objects import BucketObjects, bucket
from router.jobs.folder_objects import FolderObjects
from router.jobs.objects import Objects
from tests.fakes.platform_tools import process, tool_environment
from tests.fakes.upstreams import Answer, Received
from tests.integration.harness import INFER, Harness

BUCKET = "jobs"
LONG = os.urandom(9 * 1024 * 1024)
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real emulator of S3, with a bucket."""
    found = tool_environment("ministack", "ministack==1.5.33")
    port = free_port()
    environment = {
        "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "PATH": f"{found}:/usr/bin:/bin",
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("ministack")
    with process([found / "ministack"], f"{url}/_ministack/health", folder, environment):
        session = Session()
        session.set_credentials(*KEYS.values())
        client = session.create_client("s3", region_name="us-east-1", endpoint_url=url)
        client.create_bucket(Bucket=BUCKET)
        yield url


@pytest.fixture(
    params=["folder", "memory", pytest.param("s3", marks=pytest.mark.system)],
)
async def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Objects:
    made: Objects
    if request.param == "folder":
        made = FolderObjects(tmp_path / "objects")
    elif request.param == "memory":
        made = BucketObjects(MemoryStore())
    else:
        point_at(request.getfixturevalue("s3"), monkeypatch)
        made = BucketObjects(bucket(f"s3://{BUCKET}/a/prefix"))
    await made.open()
    return made


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator would: by the environment of the process."""
    for name, value in {
        **KEYS, "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


async def test_an_object_is_read_as_it_was_written(objects: Objects):
    name = await objects.keep(b"0123456789")
    assert await objects.read(name) == b"0123456789"
    assert await objects.read(name, 3, 4) == b"3456"
    assert b"".join([part async for part in objects.parts(name)]) == b"0123456789"


async def test_a_long_object_is_written_and_read_bit_by_bit(objects: Objects):
    async with objects.writing() as new:
        for start in range(0, len(LONG), 1_000_000):
            await new.write(LONG[start : start + 1_000_000])
        assert new.size_bytes == len(LONG)
        name = await new.keep()
    parts = [part async for part in objects.parts(name)]
    assert b"".join(parts) == LONG
    assert max(map(len, parts)) <= 256 * 1024, "it would keep the loop"
    assert await objects.read(name, len(LONG) - 5, 5) == LONG[-5:]


async def test_what_is_not_kept_cannot_be_read(objects: Objects):
    async with objects.writing() as new:
        await new.write(b"a part")
    with pytest.raises(NotFoundError):
        await objects.read(new.name)


async def test_objects_are_forgotten(objects: Objects):
    names = [await objects.keep(b"%d" % number) for number in range(20)]
    await objects.remove(*names, "no-such-object")
    await objects.remove(*names[:1])
    with pytest.raises(NotFoundError):
        await objects.read(names[0])
    with pytest.raises(NotFoundError):
        _ = [part async for part in objects.parts(names[-1])]


async def test_a_bucket_that_cannot_be_reached_keeps_nothing_and_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    point_at(f"http://127.0.0.1:{free_port()}", monkeypatch)
    objects = BucketObjects(bucket(f"s3://{BUCKET}/prefix"))
    with pytest.raises(NotDurableError, match="the object store of jobs cannot be written"):
        await objects.keep(b"payload")
    with pytest.raises(NotDurableError, match="cannot be read"):
        await objects.read("any")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in caplog.text


@pytest.mark.system
async def test_a_batch_is_in_the_bucket_alone(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    point_at(s3, monkeypatch)
    config = {"jobs": {"directory": "jobs", "objects": f"s3://{BUCKET}/whole"}}
    long = {"inputs": [0.5] * 10_000}
    lines = [
        {"custom_id": f"c{number}", "method": "POST", "url": INFER, "body": {**long, "n": number}}
        for number in range(40)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    async with Harness(tmp_path, warm=[echoes], config=config) as gateway:
        url = f"{gateway.url}/v1"
        async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
            file = await client.files.create(file=("in.jsonl", content), purpose="batch")
            endpoint: Any = INFER
            batch = await client.batches.create(
                input_file_id=file.id, endpoint=endpoint, completion_window="24h"
            )
            async with asyncio.timeout(30):
                while batch.status != "completed":
                    await asyncio.sleep(0.05)
                    batch = await client.batches.retrieve(batch.id)
            assert batch.output_file_id is not None
            output = (await client.files.content(batch.output_file_id)).text.splitlines()
        shown = await gateway.ask("GET", "/v1/config")
    assert [json.loads(line)["response"]["body"] for line in output] == [
        line["body"] for line in lines
    ]
    assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in shown.body
    assert not (tmp_path / "jobs" / "objects").exists()


async def echoes(received: Received) -> Answer:
    return Answer(body=received.body)
