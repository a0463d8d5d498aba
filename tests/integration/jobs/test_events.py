"""Events: sent by the official SDK and by platforms, answered as each of them can read it."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

from router.settings.keys import hash_key
from tests.fakes.upstreams import Answer, Gate, Received, ok
from tests.integration.harness import Harness, Reply
from tests.integration.jobs.event_senders import (
    EVENT_BRIDGE,
    EVENT_GRID,
    EVENT_GRID_VALIDATION,
    S3,
    encoded,
    pub_sub,
    sqs,
)
from tests.integration.jobs.receiver import LOOPBACK, SECRET, receiving

EVENTS = "/v1/events"
ANY = {"name": "any", "model": "m", "window": "10s"}


def config(*triggers: dict[str, Any], **more: Any) -> dict[str, Any]:
    jobs = {"directory": "jobs", "lease": "1s", **more.pop("jobs", {})}
    return {"jobs": jobs, "triggers": [{**ANY, **one} for one in triggers or [{}]], **more}


def cloud_event(data: Any = None, **attributes: str) -> CloudEvent:
    named = {"id": "e1", "source": "/shop", "type": "order.made", **attributes}
    return CloudEvent(named, {"inputs": [1]} if data is None else data)


async def send(gateway: Harness, message: http.HTTPMessage, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.request("POST", EVENTS, message.body, {**message.headers, **named})


async def post(gateway: Harness, document: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"content-type": "application/json", **named}
    return await gateway.request("POST", EVENTS, encoded(document), named)


async def echoes(received: Received) -> Answer:
    return Answer(body=received.body)


async def called(gateway: Harness, count: int = 1) -> list[Any]:
    """What the model got, once it has got so much."""
    await gateway.until(lambda: len(gateway.warm[0].received) >= count)
    return [json.loads(one.body) for one in gateway.warm[0].received]


@pytest.mark.parametrize("write", [http.to_binary_event, http.to_structured_event])
async def test_the_answer_to_the_official_sdk_is_an_event_that_it_reads(tmp_path, write):
    async with Harness(tmp_path, warm=[ok('{"é": 1}'.encode())], config=config()) as gateway:
        reply = await send(gateway, write(cloud_event(subject="größe %/1", id="é 1")))
        assert reply.status == 200
        message = http.HTTPMessage(dict(reply.headers), reply.body)
        answer = http.from_binary(message, JSONFormat(), CloudEvent)
        assert answer.get_data() == {"é": 1}
        assert answer.get_type() == "hybrid-router.answer"
        assert (answer.get_subject(), answer.get_extension("causeid")) == ("größe %/1", "é 1")
        assert answer.get_extension("causesource") == "/shop"
        assert gateway.warm[0].received[0].target == "/v2/models/m/infer"
        assert await called(gateway) == [{"inputs": [1]}]


async def test_a_batch_is_answered_by_a_batch_that_tells_failures(tmp_path):
    async def fails_sometimes(received: Received) -> Answer:
        return Answer(422 if b"2" in received.body else 200, received.body)

    async with Harness(tmp_path, warm=[fails_sometimes], config=config()) as gateway:
        events = [
            {"specversion": "1.0", "id": str(n), "source": "/s", "type": "t", "data": {"n": n}}
            for n in range(4)
        ]
        reply = await post(gateway, events, content_type="application/cloudevents-batch+json")
        assert reply.headers["content-type"] == "application/cloudevents-batch+json"
        answers = reply.json()
        assert [one["data"] for one in answers] == [{"n": n} for n in range(4)]
        assert [one["causeid"] for one in answers] == ["0", "1", "2", "3"]
        assert [one["type"].endswith(".failed") for one in answers] == [False, False, True, False]
        for one in answers:
            read = http.HTTPMessage({"content-type": "application/cloudevents+json"}, encoded(one))
            assert http.from_structured_event(read).get_source() == "/hybrid-router"


async def test_a_model_that_refuses_is_told_to_the_sender(tmp_path):
    async with Harness(tmp_path, warm=[ok(b'{"error": "x"}', 400)], config=config()) as gateway:
        reply = await send(gateway, http.to_binary_event(cloud_event()))
        assert (reply.status, reply.body) == (400, b'{"error": "x"}')
        assert "ce-id" not in reply.headers


async def test_the_same_source_and_id_are_the_same_job_and_have_the_same_answer(tmp_path):
    async with Harness(tmp_path, warm=[echoes], config=config()) as gateway:
        first = await send(gateway, http.to_binary_event(cloud_event()))
        again = await send(gateway, http.to_structured_event(cloud_event({"other": 1})))
        other = await send(gateway, http.to_binary_event(cloud_event(source="/elsewhere")))
        assert first.headers["ce-id"] == again.headers["ce-id"] != other.headers["ce-id"]
        assert first.body == again.body
        assert len(gateway.warm[0].received) == 2
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'router_events_total{result="accepted"} 2.0' in metrics
        assert 'router_events_total{result="duplicate"} 1.0' in metrics


async def test_who_prefers_not_to_wait_gets_a_job(tmp_path):
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], config=config()) as gateway:
        reply = await send(gateway, http.to_binary_event(cloud_event()), prefer="respond-async")
        assert reply.status == 202
        assert reply.json()["event"] == {"id": "e1", "source": "/shop"}
        gate.opened.set()
        answered = await send(gateway, http.to_binary_event(cloud_event()))
        assert answered.status == 200
        result = await gateway.request("GET", reply.headers["location"] + "/result")
        assert result.body == answered.body


async def test_an_answer_that_takes_too_long_is_there_for_the_next_try(tmp_path, monkeypatch):
    monkeypatch.setattr("router.jobs.events.front._BEYOND_S", -9.5)
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], config=config({"window": "10s"})) as gateway:
        reply = await send(gateway, http.to_binary_event(cloud_event()))
        assert (reply.status, reply.headers["x-router-error"]) == (504, "deadline_exceeded")
        gate.opened.set()
        monkeypatch.setattr("router.jobs.events.front._BEYOND_S", 0.5)
        assert (await send(gateway, http.to_binary_event(cloud_event()))).status == 200
        assert len(gateway.warm[0].received) == 1


async def test_a_sink_gets_the_answer_signed(tmp_path: Path):
    (tmp_path / "secret").write_text(SECRET)
    deliveries = {**LOOPBACK, "hosts": [], "secret_file": "secret"}
    async with receiving() as receiver:
        settings = config({"sink": f"{receiver.url}/broker"}, jobs={"deliveries": deliveries})
        async with Harness(tmp_path, warm=[ok(b'{"a": 1}')], config=settings) as gateway:
            reply = await send(gateway, http.to_binary_event(cloud_event(subject="s")))
            assert reply.status == 202
            got = await receiver.message()
            assert got.target == "/broker"
            Webhook(SECRET).verify(got.body, dict(got.headers))
            answer = http.from_binary_event(http.HTTPMessage(dict(got.headers), got.body))
            assert (answer.get_data(), answer.get_subject()) == ({"a": 1}, "s")
            assert reply.headers["location"] == f"/v1/jobs/{answer.get_id()}"


async def test_a_long_answer_to_a_sink_is_referred_to(tmp_path: Path):
    async with receiving() as receiver:
        settings = config({"sink": receiver.url}, jobs={"deliveries": {**LOOPBACK, "hosts": []}})
        long = b'{"a": "' + b"x" * 300_000 + b'"}'
        async with Harness(tmp_path, warm=[ok(long)], config=settings) as gateway:
            await send(gateway, http.to_binary_event(cloud_event()))
            got = await receiver.message()
            assert got.body == b""
            assert (await gateway.request("GET", got.headers["ce-dataref"])).body == long


async def test_the_first_trigger_that_matches_decides_and_fills_its_input(tmp_path):
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["{{ data.url }}"]}
    triggers = [
        {"name": "no", "type": "order.*", "source": "/elsewhere", "input": {"wrong": 1}},
        {"name": "yes", "type": ["a", "order.*"], "subject": "*.jpg",
         "input": {"inputs": [tensor], "id": "{{ source }}#{{ id }} {{ data.n.0 }}",
                   "all": "{{ data.n }}", "raw": "{{ data_base64 }}"}},
        {"name": "rest", "input": {"rest": True}},
    ]  # fmt: skip
    async with Harness(tmp_path, warm=[echoes], config=config(*triggers)) as gateway:
        data = {"url": "s3://b/a.jpg", "n": [1.5, None]}
        event = cloud_event(data, subject="a.jpg")
        reply = await send(gateway, http.to_binary_event(event))
        assert reply.json() == {
            "inputs": [{**tensor, "data": ["s3://b/a.jpg"]}], "id": "/shop#e1 1.5",
            "all": [1.5, None], "raw": base64.b64encode(http.to_binary_event(event).body).decode(),
        }  # fmt: skip
        assert reply.headers["ce-trigger"] == "yes"
        other = await send(gateway, http.to_binary_event(cloud_event(id="2", subject="a.png")))
        assert other.json() == {"rest": True}


async def test_openai_paths_are_called_with_the_triggers_model(tmp_path):
    trigger = {"endpoint": "/v1/chat/completions",
               "input": {"messages": [{"role": "user", "content": "{{ data }}"}]}}  # fmt: skip
    async with Harness(tmp_path, warm=[echoes], config=config(trigger)) as gateway:
        text = cloud_event("Hello", datacontenttype="text/plain")
        reply = await send(gateway, http.to_binary_event(text))
        assert reply.json() == {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("document", "headers", "expected"),
    [
        (EVENT_BRIDGE, {}, ["aws.s3|Object Created|photos/a b.jpg|amzn-s3-demo-bucket1"]),
        ([EVENT_BRIDGE], {}, ["aws.s3|Object Created|photos/a b.jpg|amzn-s3-demo-bucket1"]),
        (
            S3,
            {},
            [
                ("aws:s3.us-west-2.amzn-s3-demo-bucket|com.amazonaws.s3.ObjectCreated:Put"
                "|HappyFace.jpg|amzn-s3-demo-bucket")
            ],
        ),
        (
            {"Records": [sqs(json.dumps(S3)), sqs(json.dumps(EVENT_BRIDGE), "2")]},
            {},
            [
                "aws.s3|Object Created|photos/a b.jpg|amzn-s3-demo-bucket1",
                ("aws:s3.us-west-2.amzn-s3-demo-bucket|com.amazonaws.s3.ObjectCreated:Put"
                "|HappyFace.jpg|amzn-s3-demo-bucket"),
            ],
        ),
        (
            pub_sub(b'{"bucket": {"name": "b"}}', eventType="OBJECT_FINALIZE", bucketId="b",
                    objectId="o.jpg"),
            {},
            [
                ("//storage.googleapis.com/projects/_/buckets/b"
                "|google.cloud.storage.object.v1.finalized|objects/o.jpg|b")
            ],
        ),
    ],
    ids=["EventBridge", "EventBridge in a list", "S3", "S3 and EventBridge in SQS", "Pub/Sub"],
)  # fmt: skip
async def test_what_platforms_send(tmp_path, document, headers, expected):
    told = "{{ source }}|{{ type }}|{{ subject }}|{{ data.bucket.name }}"
    settings = config({"input": {"told": told}})
    async with Harness(tmp_path, warm=[ok()], config=settings) as gateway:
        reply = await post(gateway, document, **headers)
        assert reply.status == 202
        assert sorted(one["told"] for one in await called(gateway, len(expected))) == expected
        again = await post(gateway, document, **headers)
        assert again.status == 202
        listed = (await gateway.request("GET", "/v1/jobs")).json()["data"]
        assert len(listed) == len(expected)


async def test_messages_of_sqs_and_pub_sub_that_carry_other_things(tmp_path):
    settings = config({"input": {"told": "{{ type }}", "data": "{{ data }}"}})
    async with Harness(tmp_path, warm=[ok()], config=settings) as gateway:
        await post(gateway, [sqs('{"a": 1}', "1"), sqs("plain text", "2")])
        await post(gateway, pub_sub("grüße".encode()))
        attributes = {
            "ce-id": "7",
            "ce-source": "/p",
            "ce-type": "carried",
            "ce-specversion": "1.0",
        }
        pushed = pub_sub(b"[3]", **attributes)
        pushed["message"]["messageId"] = "other"
        await post(gateway, pushed)
        got = {str(one["data"]): one["told"] for one in await called(gateway, 4)}
        assert got == {
            "{'a': 1}": "aws.sqs.message",
            "plain text": "aws.sqs.message",
            "grüße": "google.cloud.pubsub.topic.v1.messagePublished",
            "[3]": "carried",
        }


async def test_event_grid_shakes_hands_and_sends(tmp_path):
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump([{"name": "grid", "sha256": hash_key("k"), "tenant": "azure"}]))
    settings = config(
        {"input": {"url": "{{ data.url }}"}},
        auth={"api_keys_file": "keys.yaml"}, events={"key_parameter": "code"},
    )  # fmt: skip
    async with Harness(tmp_path, warm=[ok()], config=settings) as gateway:
        path, kind = f"{EVENTS}?code=k", {"content-type": "application/json; charset=utf-8"}
        origin = {"webhook-request-origin": "eventgrid.azure.net", "webhook-request-rate": "120"}
        allowed = await gateway.request("OPTIONS", path, None, origin)
        assert (allowed.status, allowed.headers["webhook-allowed-origin"]) == (
            200, "eventgrid.azure.net")  # fmt: skip
        assert allowed.headers["webhook-allowed-rate"] == "*"
        assert (await gateway.request("OPTIONS", f"{EVENTS}?code=x", None, origin)).status == 401
        validation = {**kind, "aeg-event-type": "SubscriptionValidation"}
        shaken = await gateway.request("POST", path, encoded(EVENT_GRID_VALIDATION), validation)
        assert shaken.json() == {"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}
        wrong = await gateway.request(
            "POST", EVENTS, encoded(EVENT_GRID_VALIDATION), validation)  # fmt: skip
        assert wrong.status == 401
        sent = {**kind, "aeg-event-type": "Notification"}
        reply = await gateway.request("POST", path, encoded(EVENT_GRID), sent)
        assert reply.status == 202
        assert await called(gateway) == [{"url": EVENT_GRID[0]["data"]["url"]}]
        as_cloud_event = http.to_structured_event(cloud_event({"url": "u"}))
        async_too = await gateway.request(
            "POST", path, as_cloud_event.body, {**as_cloud_event.headers, **sent,
            "content-type": "application/cloudevents+json; charset=utf-8"})  # fmt: skip
        assert async_too.status == 202


async def test_tenants_have_their_own_events_and_only_their_models(tmp_path):
    keys = [
        {"name": name, "sha256": hash_key(name), "tenant": name, "models": [models]}
        for name, models in (("a", "*"), ("b", "*"), ("c", "other"))
    ]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    settings = config(auth={"api_keys_file": "keys.yaml"})
    async with Harness(tmp_path, warm=[echoes], config=settings) as gateway:
        event = http.to_binary_event(cloud_event())
        assert (await send(gateway, event)).status == 401
        assert (await send(gateway, event, x_api_key="wrong")).status == 401
        assert (await send(gateway, event, x_api_key="c")).status == 403
        first = await send(gateway, event, x_api_key="a")
        second = await send(gateway, event, authorization="Bearer b")
        assert (first.status, second.status) == (200, 200)
        assert first.headers["ce-id"] != second.headers["ce-id"]
        job = f"/v1/jobs/{first.headers['ce-id']}"
        assert (await gateway.request("GET", job, None, {"x-api-key": "b"})).status == 404
        assert (await gateway.request("GET", f"{EVENTS}?key=a")).status == 401


async def test_events_that_no_trigger_is_for(tmp_path):
    settings = config({"type": "other"})
    async with Harness(tmp_path, warm=[ok()], config=settings) as gateway:
        reply = await send(gateway, http.to_binary_event(cloud_event()))
        assert (reply.status, reply.headers["x-router-error"]) == (422, "unfit_event")
        assert "order.made" in reply.json()["error"]["message"]
        both: list[dict[str, Any]] = [
            {"specversion": "1.0", "id": kind, "source": "/s", "type": kind, "data": {}}
            for kind in ("other", "unknown")
        ]
        media = {"content_type": "application/cloudevents-batch+json"}
        assert (await post(gateway, both, **media)).status == 422
        assert not gateway.warm[0].received  # the other one neither: all or none
        gateway.config["events"] = {"unmatched": "drop"}
        await gateway.write(gateway.config)
        await gateway.gateway.reload()
        assert (await send(gateway, http.to_binary_event(cloud_event()))).json()["data"] == []
        assert len((await post(gateway, both, **media)).json()) == 1


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b"", 400),
        ({"content-type": "application/json"}, b"{}", 400),
        ({"content-type": "application/json"}, b"[" * 5000, 400),
        ({"content-type": "application/json"}, b'{"detail-type": "t", "source": "s"}', 400),
        ({"content-type": "application/json"}, b'{"message": {"data": "!"}, "subscription": "s"}',
         400),
        ({"content-type": "application/cloudevents+json"}, b"[]", 400),
        ({"content-type": "application/cloudevents+json"}, b'{"specversion": "1.0", "id": "1"}',
         400),
        ({"content-type": "application/cloudevents+json"},
         b'{"specversion": "0.3", "id": "1", "source": "s", "type": "t"}', 400),
        ({"content-type": "application/cloudevents+json"},
         b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "n": {}}', 400),
        ({"content-type": "application/cloudevents+json"},
         b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data_base64": "%"}', 400),
        ({"content-type": "application/cloudevents+avro"}, b"x", 400),
        ({"content-type": "application/cloudevents-batch+json"}, b"[" + b"{}," * 200 + b"{}]", 400),
        ({"content-type": "text/html"}, b"<p>", 400),
        ({"content-type": "application/json", "content-encoding": "gzip"}, b"{}", 415),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}, b"", 422),
        ({"ce-specversion": "1.0", "ce-id": "%0a", "ce-source": "s", "ce-type": "t"}, b"{}", 400),
        ({"ce-specversion": "1.0", "ce-id": "i" * 3000, "ce-source": "s", "ce-type": "t"}, b"{}",
         400),
        ({"content-type": "application/json", "aeg-event-type": "SubscriptionValidation"}, b"[]",
         400),
        ({"content-type": "application/json"}, b'{"a": "' + b"x" * 2**20 + b'"}', 413),
    ],
)  # fmt: skip
async def test_what_is_no_event_is_refused(tmp_path, headers, body, status):
    async with Harness(tmp_path, warm=[ok()], config=config()) as gateway:
        reply = await gateway.request("POST", EVENTS, body, headers)
        assert reply.status == status, reply.body
        assert not gateway.warm[0].received


async def test_an_event_without_what_its_input_refers_to_is_refused(tmp_path):
    settings = config({"input": {"a": "{{ data.b.c }}", "b": "x {{ data }}"}})
    async with Harness(tmp_path, warm=[ok()], config=settings) as gateway:
        missing = await send(gateway, http.to_binary_event(cloud_event()))
        assert (missing.status, missing.headers["x-router-error"]) == (422, "unfit_event")
        assert "data.b.c" in missing.json()["error"]["message"]
        nested = await send(gateway, http.to_binary_event(cloud_event({"b": {"c": 1}})))
        assert "stands within a text" in nested.json()["error"]["message"]


async def test_without_triggers_the_path_is_not_there(tmp_path):
    jobs = {"jobs": {"directory": "jobs"}}
    async with Harness(tmp_path, warm=[ok()], config=jobs) as gateway:
        assert (await send(gateway, http.to_binary_event(cloud_event()))).status == 404


async def test_a_sender_that_leaves_changes_nothing(tmp_path):
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], config=config()) as gateway:
        sending = asyncio.create_task(send(gateway, http.to_binary_event(cloud_event())))
        await gateway.until(lambda: gate.waiting == 1)
        sending.cancel()
        await asyncio.wait([sending])
        gate.opened.set()
        assert (await send(gateway, http.to_binary_event(cloud_event()))).status == 200
        assert len(gateway.warm[0].received) == 1


async def test_an_input_that_its_references_make_too_long_is_refused(tmp_path):
    settings = config({"input": {"all": ["{{ data }}"] * 50}})
    async with Harness(
        tmp_path, warm=[ok()], server={"max_body": "1MiB"}, config=settings
    ) as gateway:
        event = cloud_event("x" * 100_000, datacontenttype="text/plain")
        assert (await send(gateway, http.to_binary_event(event))).status == 413
