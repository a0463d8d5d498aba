"""Callbacks of jobs: signed, told once, kept over a restart, and only to whom they may go."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from standardwebhooks import Webhook

from tests.fakes.upstreams import Gate, hangs_up, ok
from tests.integration.harness import INFER, Harness
from tests.integration.jobs.receiver import LOOPBACK, SECRET, receiving

HEADER = "x-router-callback-url"


def config(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    deliveries = {**LOOPBACK, "secret_file": "secret", **more}
    return {"jobs": {"directory": "jobs", "lease": "1s", "deliveries": deliveries}}


def later(url: str, **more: str) -> dict[str, str]:
    return {"prefer": "respond-async", HEADER: url, **more}


async def delivery_of(gateway: Harness, location: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            reply = await gateway.client.get(gateway.url + location, allow_redirects=False)
            delivery: dict[str, Any] = (await reply.json())["delivery"]
            if delivery["status"] == status:
                return delivery
            await asyncio.sleep(0.01)


async def test_a_callback_tells_what_came_of_a_job_and_is_signed(tmp_path):
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[ok('{"é": 1}'.encode())], config=config(tmp_path)) as gateway,
    ):
        taken = await gateway.request("POST", INFER, b"{}", later(f"{receiver.url}/hook?a=b"))
        assert taken.status == 202
        got = await receiver.message()
        assert (got.method, got.target) == ("POST", "/hook?a=b")
        message = Webhook(SECRET).verify(got.body, dict(got.headers))
        assert message["type"] == "job.done"
        assert message["timestamp"].endswith("Z")
        data = message["data"]
        assert taken.headers["location"] == f"/v1/jobs/{data['id']}"
        assert data["response"] == {"status_code": 200, "body": {"é": 1}}
        assert (await delivery_of(gateway, taken.headers["location"], "delivered"))["attempts"] == 1
        assert HEADER not in gateway.warm[0].received[0].headers
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'router_delivery_attempts_total{result="delivered"} 1.0' in metrics


async def test_dead_and_cancelled_jobs_are_told_of_and_a_retry_is_told_anew(tmp_path):
    gate = Gate()
    settings = config(tmp_path)
    settings["jobs"]["attempts"] = 1
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[gate], model={"attempts": 1}, config=settings) as gateway,
    ):
        taken = await gateway.request("POST", INFER, b"{}", later(receiver.url))
        await gateway.until(lambda: gate.waiting == 1)
        await gateway.request("DELETE", taken.headers["location"])
        assert b'"job.cancelled"' in (await receiver.message()).body
        gate.opened.set()
        gateway.warm[0].behave = hangs_up()
        taken = await gateway.request("POST", INFER, b"{}", later(receiver.url))
        dead = await receiver.message(1)
        assert b'"job.dead"' in dead.body
        gateway.warm[0].behave = ok()
        await delivery_of(gateway, taken.headers["location"], "delivered")
        retried = await gateway.request("POST", f"{taken.headers['location']}/retry")
        assert retried.status == 200
        done = await receiver.message(2)
        assert b'"job.done"' in done.body
        assert done.headers["webhook-id"] != dead.headers["webhook-id"]


async def test_a_callback_outlives_the_gateway(tmp_path, monkeypatch):
    monkeypatch.setattr("router.jobs.deliveries.records._FIRST_PAUSE_S", 0.5)
    async with (
        receiving(503) as receiver,
        Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway,
    ):
        taken = await gateway.request("POST", INFER, b"{}", later(receiver.url))
        first = await receiver.message()
        while (await delivery_of(gateway, taken.headers["location"], "waiting"))["attempts"] != 1:
            await asyncio.sleep(0.01)
        receiver.behave = ok()
        await gateway.restart()
        second = await receiver.message(1)
        assert second.headers["webhook-id"] == first.headers["webhook-id"]
        assert second.body == first.body
        await delivery_of(gateway, taken.headers["location"], "delivered")


async def test_the_same_idempotency_key_is_told_once(tmp_path):
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway,
    ):
        keyed = later(receiver.url, **{"idempotency-key": "one"})
        first = await gateway.request("POST", INFER, b"{}", keyed)
        again = await gateway.request("POST", INFER, b"{}", keyed)
        assert first.headers["location"] == again.headers["location"]
        other = await gateway.request(
            "POST", INFER, b"{}", later(f"{receiver.url}/x", **{"idempotency-key": "one"})
        )
        assert other.status == 409
        await delivery_of(gateway, first.headers["location"], "delivered")
        assert len(receiver.received) == 1


async def test_a_conflict_leaves_no_delivery_behind(tmp_path):
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway,
    ):
        plain = {"prefer": "respond-async", "idempotency-key": "one"}
        taken = await gateway.request("POST", INFER, b"{}", plain)
        refused = await gateway.request("POST", INFER, b"{}", {**plain, HEADER: receiver.url})
        assert refused.status == 409
        store = gateway.gateway._jobs._place.store  # type: ignore[union-attr]
        assert await store.deliveries.get(taken.headers["location"].rsplit("/")[-1]) is None


@pytest.mark.parametrize(
    ("url", "deliveries", "word"),
    [
        ("https://elsewhere.example/", {}, "not one that may be called back"),
        ("http://127.0.0.1/", {"allow_http": False}, "must be https"),
        ("http://127.0.0.1/", {"hosts": []}, "nobody is called back"),
        ("gopher://127.0.0.1/", {}, "must be https or http"),
    ],
)
async def test_who_may_not_be_called_back_is_refused_at_once(tmp_path, url, deliveries, word):
    settings = config(tmp_path, **deliveries)
    async with Harness(tmp_path, warm=[ok()], config=settings) as gateway:
        reply = await gateway.request("POST", INFER, b"{}", later(url))
        assert (reply.status, reply.headers["x-router-error"]) == (400, "invalid_request")
        assert word in reply.json()["error"]
        assert (await gateway.request("GET", "/v1/jobs")).json()["data"] == []


async def test_a_private_address_behind_an_allowed_name_is_not_connected_to(tmp_path):
    settings = config(tmp_path, private_networks=[], hosts=["localhost"])
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[ok()], config=settings) as gateway,
    ):
        url = receiver.url.replace("127.0.0.1", "localhost")
        taken = await gateway.request("POST", INFER, b"{}", later(url))
        location = taken.headers["location"]
        while not (found := await delivery_of(gateway, location, "waiting"))["attempts"]:
            await asyncio.sleep(0.01)
        assert found["error"] == "its address is not one that may be called"
        assert not receiver.received


async def test_the_end_of_a_batch_is_told_as_openais_client_unwraps_it(tmp_path):
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway,
        openai.AsyncOpenAI(api_key="any", base_url=f"{gateway.url}/v1", max_retries=0) as client,
    ):
        body = {"model": "m", "messages": []}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
        ended = list[str]()
        for content, status in ((json.dumps(line).encode(), "completed"), (b"\n", "failed")):
            file = await client.files.create(file=("in.jsonl", content), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                extra_headers={HEADER: f"{receiver.url}/batches"},
            )  # fmt: skip
            got = await receiver.message(len(ended))
            event: Any = client.webhooks.unwrap(got.body.decode(), dict(got.headers), secret=SECRET)
            assert event.type == f"batch.{status}"
            assert event.data.id == batch.id
            ended.append(event.id)
        assert len(set(ended)) == 2
        with pytest.raises(openai.BadRequestError, match="not one that may be called back"):
            await client.batches.create(
                input_file_id="any", endpoint="/v1/chat/completions", completion_window="24h",
                extra_headers={HEADER: "https://elsewhere.example/"},
            )  # fmt: skip


async def test_a_new_secret_is_taken_up_while_jobs_wait(tmp_path):
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway,
    ):
        new = "whsec_" + base64.b64encode(b"n" * 32).decode()
        await asyncio.to_thread((tmp_path / "secret").write_text, f"{new}\n{SECRET}\n")
        await gateway.gateway.reload()
        await gateway.request("POST", INFER, b"{}", later(receiver.url))
        got = await receiver.message()
        for secret in (new, SECRET):
            assert Webhook(secret).verify(got.body, dict(got.headers))


async def test_a_name_that_was_forgotten_is_told_of_again(tmp_path):
    async with (
        receiving() as receiver,
        Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway,
    ):
        keyed = later(receiver.url, **{"idempotency-key": "one"})
        taken = await gateway.request("POST", INFER, b"{}", keyed)
        await delivery_of(gateway, taken.headers["location"], "delivered")
        store = gateway.gateway._jobs._place.store  # type: ignore[union-attr]
        assert len(await store.sweep(1e12, 10)) == 1
        again = await gateway.request("POST", INFER, b"{}", keyed)
        assert again.headers["location"] == taken.headers["location"]
        await receiver.message(1)
