"""Requests whose clients prefer to be answered later."""

import asyncio
import hashlib
from typing import Any

import pytest
import yaml

from router.jobs.records import State
from tests.fakes.upstreams import Answer, Gate, Received, hangs_up, ok
from tests.integration.harness import INFER, Harness, Reply

LATER = {"prefer": "respond-async"}
JOBS = {"jobs": {"directory": "jobs", "lease": "1s"}}
CHAT = "/v1/chat/completions"


def jobs(**more: Any) -> dict[str, Any]:
    return {"jobs": {**JOBS["jobs"], **more}}


async def ended(gateway: Harness, location: str, **headers: str) -> dict[str, Any]:
    """The job's document once it is neither queued nor running."""
    while True:
        reply = await gateway.client.get(
            gateway.url + location, headers=headers, allow_redirects=False
        )
        document = await reply.json()
        if document["status"] not in {"queued", "running"}:
            return {
                **document,
                "status_of_get": reply.status,
                "there": reply.headers.get("location"),
            }
        await asyncio.sleep(0.01)


async def answer_of(gateway: Harness, location: str) -> Reply:
    document = await ended(gateway, location)
    assert document["status"] == "done", document
    return await gateway.request("GET", document["there"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (INFER, b'{"inputs": []}'),
        ("/v1/models/m:predict", b'{"instances": []}'),
        (CHAT, b'{"model": "m", "messages": []}'),
        (INFER, b'{"inputs": "' + b"x" * 100_000 + b'"}'),
    ],
    ids=["OIP", "KServe V1", "OpenAI", "a long body"],
)
async def test_a_call_is_answered_later_with_what_the_backend_said(tmp_path, path, body):
    said = ok(b'{"answer": "\xc3\xa9"}' * 3000, x_model_header="kept")
    async with Harness(tmp_path, warm=[said], config=JOBS) as gateway:
        taken = await gateway.request("POST", path, body, {**LATER, "x-trace": "1"})
        assert (taken.status, taken.headers["preference-applied"]) == (202, "respond-async")
        document = await ended(gateway, taken.headers["location"])
        assert (document["status"], document["status_of_get"]) == ("done", 303)
        answer = await gateway.request("GET", document["there"])
        assert answer.body == b'{"answer": "\xc3\xa9"}' * 3000
        assert answer.headers["x-model-header"] == "kept"
        (received,) = gateway.warm[0].received
        assert (received.body, received.headers["x-trace"]) == (body, "1")
        assert "prefer" not in received.headers


async def test_a_known_head_does_not_hide_the_preference(tmp_path):
    async with Harness(tmp_path, warm=[ok()], config=JOBS) as gateway:
        for headers in ({}, LATER, {}, LATER):
            reply = await gateway.request("POST", INFER, b"{}", {"x-a": "b", **headers})
            assert reply.status == (202 if headers else 200)


async def test_without_jobs_the_preference_is_not_applied(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reply = await gateway.request("POST", INFER, b"{}", LATER)
        assert (reply.status, "preference-applied" in reply.headers) == (200, False)
        assert (await gateway.request("GET", "/v1/jobs")).status == 404


async def test_the_models_own_errors_are_answers(tmp_path):
    async with Harness(tmp_path, warm=[ok(b'{"error": "bad shape"}', 400)], config=JOBS) as gateway:
        taken = await gateway.request("POST", INFER, b"{}", LATER)
        answer = await answer_of(gateway, taken.headers["location"])
        assert (answer.status, answer.body) == (400, b'{"error": "bad shape"}')


async def test_a_job_that_fails_again_and_again_is_a_dead_letter_that_can_be_retried(tmp_path):
    async with Harness(
        tmp_path, warm=[hangs_up()], model={"attempts": 1}, config=jobs(attempts=1)
    ) as gateway:
        taken = await gateway.request("POST", INFER, b"{}", LATER)
        document = await ended(gateway, taken.headers["location"])
        assert document["status"] == "dead"
        assert "message" in document["error"]
        listed = (await gateway.request("GET", "/v1/jobs?status=dead")).json()
        assert [one["id"] for one in listed["data"]] == [document["id"]]
        gateway.warm[0].behave = ok(b"well")
        retried = await gateway.request("POST", f"/v1/jobs/{document['id']}/retry")
        assert retried.json()["status"] == "queued"
        assert (await answer_of(gateway, taken.headers["location"])).body == b"well"
        again = await gateway.request("POST", f"/v1/jobs/{document['id']}/retry")
        assert again.status == 409


async def test_the_same_idempotency_key_is_the_same_job(tmp_path):
    async with Harness(tmp_path, warm=[ok()], config=JOBS) as gateway:
        keyed = {**LATER, "idempotency-key": "one"}
        first = await gateway.request("POST", INFER, b"{}", keyed)
        again = await gateway.request("POST", INFER, b"{}", keyed)
        other = await gateway.request("POST", INFER, b'{"a": 1}', keyed)
        assert first.headers["location"] == again.headers["location"]
        assert other.status == 409
        await answer_of(gateway, first.headers["location"])
        assert len(gateway.warm[0].received) == 1


async def test_a_cancelled_job_never_has_an_answer(tmp_path):
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], config=jobs(concurrency=1)) as gateway:
        running = await gateway.request("POST", INFER, b"{}", LATER)
        waiting = await gateway.request("POST", INFER, b"{}", LATER)
        await gateway.until(lambda: gate.waiting == 1)
        for taken in (waiting, running):
            cancelled = await gateway.request("DELETE", taken.headers["location"])
            assert cancelled.json()["status"] == "cancelled"
        gate.opened.set()
        third = await gateway.request("POST", INFER, b"{}", LATER)
        await answer_of(gateway, third.headers["location"])
        for taken in (waiting, running):
            there = taken.headers["location"]
            assert (await gateway.request("GET", there)).json()["status"] == "cancelled"
            assert (await gateway.request("GET", f"{there}/result")).status == 409


async def test_real_time_goes_first(tmp_path):
    gate = Gate()
    async with Harness(
        tmp_path, warm=[gate], pool={"concurrency": 1}, config=jobs(concurrency=4)
    ) as gateway:
        now = [asyncio.create_task(gateway.infer(b'"now"')) for _ in range(3)]
        await gateway.until(lambda: gate.waiting == 1)
        later = [await gateway.request("POST", INFER, b'"later"', LATER) for _ in range(3)]
        gate.opened.set()
        assert [one.status for one in await asyncio.gather(*now)] == [200, 200, 200]
        for taken in later:
            await answer_of(gateway, taken.headers["location"])
        assert [one.body for one in gateway.warm[0].received] == [b'"now"'] * 3 + [b'"later"'] * 3


async def test_nothing_is_paid_for_until_the_window_forces_it(tmp_path):
    """A pool that is full, and a function: the function is asked only for what is due."""
    gate = Gate()
    async with Harness(
        tmp_path, warm=[gate], function=ok(b'"paid"'),
        pool={"concurrency": 1, "service_time_ms": 5000},
        serverless={"service_time_ms": 1}, config=JOBS,
    ) as gateway:  # fmt: skip
        busy = asyncio.create_task(gateway.infer(x_router_backend="pool"))
        await gateway.until(lambda: gate.waiting == 1)
        patient = await gateway.request("POST", INFER, b"{}", LATER)
        urgent = await gateway.request(
            "POST", INFER, b"{}", {**LATER, "x-router-deadline-ms": "2000"}
        )
        assert (await answer_of(gateway, urgent.headers["location"])).body == b'"paid"'
        assert (await gateway.request("GET", patient.headers["location"])).json()["status"] == (
            "queued"
        )
        gate.opened.set()
        await busy
        assert (await answer_of(gateway, patient.headers["location"])).body == b'{"outputs": []}'


async def test_a_window_that_cannot_be_met_is_refused_with_one_that_can(tmp_path):
    async with Harness(
        tmp_path, warm=[ok()], pool={"service_time_ms": 60_000}, config=JOBS
    ) as gateway:
        refused = await gateway.request(
            "POST", INFER, b"{}", {**LATER, "x-router-deadline-ms": "5000"}
        )
        assert refused.status == 400
        assert "the earliest window is 91 s" in refused.json()["error"]


async def test_what_may_not_run_twice_is_refused(tmp_path):
    async with Harness(tmp_path, warm=[ok()], model={"idempotent": False}, config=JOBS) as gateway:
        assert (await gateway.request("POST", INFER, b"{}", LATER)).status == 400


async def test_a_tenant_sees_only_its_own_jobs(tmp_path):
    entries = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "tenant": tenant}
        for name, tenant in (("a1", "a"), ("a2", "a"), ("b1", "b"))
    ]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(entries))
    config = {**jobs(max_jobs=1), "auth": {"api_keys_file": "keys.yaml"}}
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], config=config) as gateway:
        taken = await gateway.request("POST", INFER, b"{}", {**LATER, "x-api-key": "a1"})
        there = taken.headers["location"]
        full = await gateway.request("POST", INFER, b"{}", {**LATER, "x-api-key": "a2"})
        assert (full.status, full.headers["x-router-error"]) == (429, "too_many_jobs")
        assert (await gateway.request("GET", there)).status == 401
        for method, path in (("GET", there), ("DELETE", there), ("GET", f"{there}/result"),
                             ("POST", f"{there}/retry")):  # fmt: skip
            foreign = await gateway.request(method, path, headers={"x-api-key": "b1"})
            assert foreign.status == 404
        listed = await gateway.request("GET", "/v1/jobs", headers={"x-api-key": "b1"})
        assert listed.json()["data"] == []
        gate.opened.set()
        assert (await ended(gateway, there, **{"x-api-key": "a2"}))["status"] == "done"
        assert "x-api-key" not in str([one.headers for one in gateway.warm[0].received])


async def test_a_job_that_finds_no_slot_is_given_back_for_others(tmp_path):
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], config=jobs()) as gateway:
        for _ in range(12):
            await gateway.request("POST", INFER, b"{}", LATER)
        await gateway.until(lambda: gate.waiting == 4)
        async with asyncio.timeout(10):
            while True:
                listed = await gateway.request("GET", "/v1/jobs?status=queued")
                if len(listed.json()["data"]) == 8:
                    break
                await asyncio.sleep(0.05)
        assert {one["attempts"] for one in listed.json()["data"]} == {0}
        gate.opened.set()
        jobs_here = gateway.gateway._jobs
        assert jobs_here is not None
        await gateway.until(lambda: jobs_here.runner.ended[State.DONE] == 12)


async def test_jobs_outlive_the_gateway(tmp_path):
    gate = Gate()
    async with Harness(
        tmp_path, warm=[gate], server={"drain_timeout": "0s"}, config=jobs(concurrency=1)
    ) as gateway:
        taken = [await gateway.request("POST", INFER, b"%d" % n, LATER) for n in range(3)]
        await gateway.until(lambda: gate.waiting == 1)
        await gateway.restart()
        gate.opened.set()
        for one in taken:
            await answer_of(gateway, one.headers["location"])
        assert [one.body for one in gateway.warm[0].received] == [b"0", b"0", b"1", b"2"]


async def test_what_cannot_be_written_down_is_not_accepted(tmp_path):
    (tmp_path / "jobs").write_text("a file stands where the folder should be")
    async with Harness(tmp_path, warm=[ok()], config=JOBS) as gateway:
        refused = await gateway.request("POST", INFER, b"{}", LATER)
        assert (refused.status, refused.headers["x-router-error"]) == (503, "not_durable")
        assert (await gateway.infer()).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"prefer": "wait=5, Respond-Async;q=1"}, 202),
        ({"prefer": "return=minimal"}, 200),
        ({**LATER, "idempotency-key": ""}, 400),
        ({**LATER, "idempotency-key": "x" * 256}, 400),
        ({**LATER, "x-router-deadline-ms": "soon"}, 400),
    ],
)
async def test_what_heads_say(tmp_path, headers, status):
    async with Harness(tmp_path, warm=[ok()], config=JOBS) as gateway:
        assert (await gateway.request("POST", INFER, b"{}", headers)).status == status


async def test_questions_are_answered_now_whatever_is_preferred(tmp_path):
    async with Harness(tmp_path, warm=[ok()], config=JOBS) as gateway:
        assert (await gateway.request("POST", "/v2/repository/index", b"{}", LATER)).status == 200
        assert (
            await gateway.request("POST", INFER.replace("/m/", "/x/"), b"{}", LATER)
        ).status == 404
        assert (await gateway.request("POST", INFER, b"", LATER)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/no-such", 404),
        ("PUT", "/v1/jobs/no-such", 405),
        ("POST", "/v1/jobs", 405),
        ("GET", "/v1/jobs/a/b", 404),
        ("GET", "/v1/jobs?limit=0", 400),
        ("GET", "/v1/jobs?status=lost", 400),
        ("GET", "/v1/jobs?limit=5&status=dead,done", 200),
    ],
)
async def test_paths_of_jobs(tmp_path, method, path, status):
    async with Harness(tmp_path, warm=[ok()], config=JOBS) as gateway:
        assert (await gateway.request(method, path)).status == status


async def test_a_stream_is_kept_whole(tmp_path):
    async def chunks():
        for number in range(3):
            yield b"data: %d\n\n" % number

    async def streams(_: Received) -> Answer:
        return Answer(headers=(("content-type", "text/event-stream"),), chunks=chunks)

    async with Harness(tmp_path, warm=[streams], config=JOBS) as gateway:
        body = b'{"model": "m", "messages": [], "stream": true}'
        taken = await gateway.request("POST", CHAT, body, LATER)
        answer = await answer_of(gateway, taken.headers["location"])
        assert answer.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert answer.headers["content-type"] == "text/event-stream"
