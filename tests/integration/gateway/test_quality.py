"""Samples, labels and canaries judged by them, on the real gateway."""

import asyncio
import hashlib
import json
from copy import deepcopy

import pytest
import yaml

from tests.fakes.upstreams import Answer, Gate, Upstream, ok, running
from tests.integration.gateway.test_canary import canary_of, runtime
from tests.integration.gateway.test_lifecycle import reload
from tests.integration.harness import Harness

QUALITY = {"sample": 100, "task": "classification", "baseline": {"first": 100}}


def tensor(name, values):
    return {"name": name, "shape": [1, len(values)], "datatype": "FP32", "data": list(values)}


def question(*values) -> bytes:
    return json.dumps({"inputs": [tensor("x", values)]}).encode()


def outputs(*values, **more) -> bytes:
    return json.dumps({"model_name": "m", "outputs": [tensor("y", values)], **more}).encode()


def watched(tmp_path, behave=None, quality=None, **more):
    model = {"quality": {**QUALITY, **(quality or {})}}
    return Harness(tmp_path, warm=[behave or ok(outputs(0.9, 0.1))], model=model, **more)


def counts(gateway):
    return gateway.gateway._parts.quality.samples


async def sampled(gateway, number, result="read"):
    """Until so many samples of `m` have been read, or became what was said."""
    await gateway.until(lambda: counts(gateway)["m", result] >= number)


async def quality_of(gateway, path="/v1/quality"):
    reply = await gateway.ask("GET", path)
    assert reply.status == 200, reply.body
    return reply.json()


async def version_of(gateway):
    (model,) = (await quality_of(gateway))["models"]
    (version,) = model["versions"]
    return version


async def label(gateway, *entries, **headers):
    body = b"\n".join(json.dumps(entry).encode() for entry in entries)
    return await gateway.infer(body, "/v1/feedback", **headers)


@pytest.mark.parametrize("fast", [True, False], ids=["fast path on", "fast path off"])
async def test_a_sampled_request_is_read_and_passes_unchanged(tmp_path, fast):
    async with watched(tmp_path, server={"fast_path": fast}) as gateway:
        for _ in range(3):
            reply = await gateway.infer(question(1.5, 2.0))
            assert (reply.status, reply.body) == (200, outputs(0.9, 0.1))
        await sampled(gateway, 3)
        assert {got.body for got in gateway.warm[0].received} == {question(1.5, 2.0)}
        version = await version_of(gateway)
        assert (version["samples"], version["learned"], version["baseline"]) == (3, 3, None)
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'router_quality_samples_total{model="m",result="read"} 3.0' in metrics


async def test_a_share_is_sampled_and_the_rest_takes_the_shortcut(tmp_path):
    async with watched(tmp_path, quality={"sample": 10}) as gateway:
        await asyncio.gather(*(gateway.infer(question(1)) for _ in range(20)))
        for _ in range(180):
            await gateway.infer(question(1))
        fast = gateway.gateway._data.fast_path
        assert fast is not None
        await gateway.until(lambda: sum(counts(gateway).values()) >= 5)
        assert sum(counts(gateway).values()) <= 45  # 20 expected of 200


async def test_without_settings_nothing_is_watched(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        await gateway.infer(question(1))
        assert gateway.gateway._parts.quality._thread._threads == set()
        found = await quality_of(gateway)
        assert (found["models"], found["samples"]) == ([], {})
        reply = await gateway.ask("GET", "/v1/quality?model=m")
        assert reply.status == 404


@pytest.mark.parametrize(
    ("body", "answer", "result"),
    [
        (b"not json", outputs(1), "unreadable"),
        (question(1), b"not json", "unreadable"),
        (b'{"inputs": [{"name": "x", "shape": [9], "datatype": "FP32", "data": [1]}]}',
         outputs(1), "read"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ["a"]}]}',
         outputs(1), "unreadable"),
        (b"[" * 5000, outputs(1), "unreadable"),
        (question(*range(3000)), outputs(1), "too_large"),
        (question(1), outputs(*range(3000)), "too_large"),
    ],
    ids=["no JSON", "an answer without JSON", "a shape that lies", "text for numbers",
         "a thousand brackets", "a large request", "a large answer"],
)  # fmt: skip
async def test_what_cannot_be_sampled_passes_and_is_counted(tmp_path, body, answer, result):
    async with watched(tmp_path, ok(answer), {"max_bytes": "8KiB"}) as gateway:
        reply = await gateway.infer(body)
        assert (reply.status, reply.body) == (200, answer)
        await sampled(gateway, 1, result)


async def test_a_streamed_answer_is_sampled_as_it_passes(tmp_path):
    whole = outputs(0.2, 0.8)

    async def parts():
        yield whole[:10]
        yield whole[10:]

    async def streams(_):
        return Answer(chunks=parts)

    async with watched(tmp_path, streams) as gateway:
        assert (await gateway.infer(question(1))).body == whole
        await sampled(gateway, 1)


async def test_labels_that_come_late_say_how_good_the_answers_were(tmp_path):
    async with watched(tmp_path) as gateway:
        for number in range(10):
            await gateway.infer(question(1), x_request_id=f"r-{number}")
        await sampled(gateway, 10)
        lines = [{"request_id": f"r-{number}", "label": int(number < 3)} for number in range(10)]
        reply = await label(gateway, *lines, {"request_id": "never", "label": 0})
        assert reply.status == 200
        assert {name: reply.json()[name] for name in ("counted", "unknown")} == {
            "counted": 10,
            "unknown": 1,
        }
        again = await label(gateway, *lines[:1])
        assert again.json()["unknown"] == 1
        accuracy = (await version_of(gateway))["accuracy"]
        assert accuracy["accuracy"]["value"] == 0.7
        assert accuracy["accuracy"]["low"] < 0.7 < accuracy["accuracy"]["high"]
        assert set(accuracy) >= {"precision", "recall", "f1", "log_loss", "brier", "ece", "auc"}


async def test_an_answers_own_id_and_scores_are_understood_too(tmp_path):
    async with watched(tmp_path, ok(outputs(0.9, 0.1, id="mine"))) as gateway:
        await gateway.infer(question(1))
        await sampled(gateway, 1)
        reply = await label(gateway, {"id": "mine", "score": 0.5})
        assert reply.json()["counted"] == 1
        assert (await version_of(gateway))["accuracy"]["mean_score"]["value"] == 0.5


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "1..1000 labels"),
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"request_id": "r"}', "one of label, score and correct"),
        (b'{"request_id": "r", "label": 1, "score": 1}', "one of label, score and correct"),
        (b'{"label": 1}', "needs request_id or id"),
        (b'{"request_id": "r", "label": {}}', "cannot be read"),
        (b'{"request_id": "r", "score": 1e999}', "cannot be read"),
        (b'{"request_id": "r", "score": 7}', "a number of 0..1"),
        (b'{"request_id": "r", "label": 1.5}', "name or the index"),
        (b'{"request_id": "r", "label": [0, 1]}', "2 labels of 1"),
        (b'{"request_id": "' + b"r" * 300 + b'", "label": 1}', "needs request_id or id"),
        (b'{"request_id": "r", "label": 1}\n' * 1001, "1..1000 labels"),
    ],
)
async def test_a_label_that_makes_no_sense_is_refused_clearly(tmp_path, body, told):
    async with watched(tmp_path) as gateway:
        await gateway.infer(question(1), x_request_id="r")
        await sampled(gateway, 1)
        reply = await gateway.infer(body, "/v1/feedback")
        assert reply.status == 400
        assert told in reply.json()["error"]
        assert len(gateway.gateway._parts.quality.pending) == 1


async def test_a_tenant_labels_its_own_answers_only(tmp_path):
    keys = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "tenant": name}
        for name in ("one", "two")
    ]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    config = {"auth": {"api_keys_file": "keys.yaml"}}
    async with watched(tmp_path, config=config) as gateway:
        await gateway.infer(question(1), x_request_id="r", x_api_key="one")
        await sampled(gateway, 1)
        entry = {"request_id": "r", "label": 0}
        foreign = (await label(gateway, entry, x_api_key="two")).json()
        unheard_of = (await label(gateway, {**entry, "request_id": "s"}, x_api_key="two")).json()
        assert foreign == unheard_of
        assert foreign["unknown"] == 1
        assert (await label(gateway, entry)).status == 401
        assert (await label(gateway, entry, x_api_key="one")).json()["counted"] == 1
        tenants = (await version_of(gateway))["by_tenant"]
        assert list(tenants) == ["one"]


async def test_answers_that_wait_are_bounded_and_the_oldest_go_first(tmp_path):
    async with watched(tmp_path, quality={"labels": {"max_pending": 5}}) as gateway:
        for number in range(12):
            await gateway.infer(question(1), x_request_id=f"r-{number}")
        await sampled(gateway, 12)
        assert len(gateway.gateway._parts.quality.pending) == 5
        entries = [{"request_id": f"r-{number}", "label": 0} for number in range(12)]
        assert (await label(gateway, *entries)).json()["counted"] == 5


async def test_a_shift_is_found_named_and_told_apart_from_before(tmp_path):
    shift = {"by": 0.0}

    async def behaves(request):
        value = json.loads(request.body)["inputs"][0]["data"][0]
        score = 1 / (1 + 2.7**-(value))
        return Answer(body=outputs(1 - score, score))

    settings = {"baseline": {"first": 200}, "window": {"samples": 100},
                "false_alarms_per_week": 1}  # fmt: skip
    async with watched(tmp_path, behaves, settings) as gateway:

        async def send(number):
            for at in range(number):
                value = (at * 0.6180339) % 1 * 2 - 1 + shift["by"]
                await gateway.infer(question(value))

        await send(300)
        await sampled(gateway, 300)
        before = await version_of(gateway)
        assert (before["looks"], before["drifting"]) == (1, [])
        shift["by"] = 3.0
        await send(100)
        await sampled(gateway, 400)
        after = await version_of(gateway)
        assert {"in:x", "out:confidence"} <= set(after["drifting"])
        alarm = next(each for each in after["alarms"] if each["feature"] == "in:x")
        assert (alarm["samples"], alarm["baseline_samples"]) == (100, 200)
        assert alarm["baseline"] != alarm["now"]
        await gateway.until(lambda: gateway.gateway._parts.quality.summary)
        reply = await gateway.ask("POST", "/v1/quality", {"model": "m", "action": "rebaseline"})
        assert reply.status == 200
        assert (await version_of(gateway))["baseline"] is None


async def test_labels_take_out_a_canary_that_is_wrong_more_often(tmp_path):
    async with (
        running(Upstream(ok(outputs(0.1, 0.9)))) as upstream,
        watched(tmp_path) as gateway,
    ):
        config = deepcopy(gateway.config)
        model = config["models"][0]
        pool = {**model["pool"], "urls": [upstream.url]}
        config["models"].append({**model, "name": "m-next", "served_as": "m", "pool": pool})
        rollback = {"min_requests": 1000, "confidence": 0.99, "accuracy": {"margin": 0.05}}
        canary = {"model": "m-next", "share": 50, "rollback": rollback}
        config["rules"] = [
            {"name": "canary", "match": {"model": "m"}, "route": "auto", "canary": canary}
        ]
        assert (await reload(gateway, config)).status == 200
        await gateway.until(lambda: runtime(gateway).models["m-next"].pool.ready == 1)
        for number in range(100):
            await gateway.infer(question(1), x_request_id=f"r-{number}")
        await gateway.until(lambda: sum(counts(gateway).values()) >= 100)
        # All were answered as fast and without an error; that half is wrong, only labels say.
        assert (await canary_of(gateway))["state"] == "running"
        entries = [{"request_id": f"r-{number}", "label": 0} for number in range(100)]
        assert (await label(gateway, *entries)).json()["counted"] == 100
        trial = runtime(gateway).trials["canary"]
        await gateway.until(lambda: trial.is_rolled_back)
        found = await canary_of(gateway)
        assert (found["fault"], found["share_percent"]) == ("accuracy", 0)
        assert "labelled answers were wrong" in found["finding"]
        (shown,) = (await quality_of(gateway))["canaries"]
        assert shown["sides"]["canary"]["wrong"] == 1
        replies = [await gateway.infer(question(1), x_request_id=f"s-{n}") for n in range(20)]
        assert {reply.headers["x-router-model"] for reply in replies} == {"m"}


async def test_a_model_that_hangs_up_or_whose_client_leaves_gives_no_sample(tmp_path):
    gate = Gate()
    async with watched(tmp_path, gate) as gateway:
        leaving = asyncio.create_task(gateway.infer(question(1)))
        await gateway.until(lambda: gate.waiting == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        gate.opened.set()
        assert (await gateway.infer(question(1))).status == 200
        await gateway.until(lambda: sum(counts(gateway).values()) == 1)


async def test_a_model_that_is_watched_no_more_is_forgotten(tmp_path):
    async with watched(tmp_path) as gateway:
        await gateway.infer(question(1), x_request_id="r")
        await sampled(gateway, 1)
        config = deepcopy(gateway.config)
        del config["models"][0]["quality"]
        assert (await reload(gateway, config)).status == 200
        assert len(gateway.gateway._parts.quality.pending) == 0
        assert (await gateway.infer(question(1))).status == 200
        assert (await quality_of(gateway))["models"] == []


async def test_labels_judge_a_shadow_too(tmp_path):
    async with running(Upstream(ok(outputs(0.1, 0.9)))) as upstream, watched(tmp_path) as gateway:
        config = deepcopy(gateway.config)
        model = config["models"][0]
        pool = {**model["pool"], "urls": [upstream.url]}
        config["models"].append({**model, "name": "s", "served_as": "m", "pool": pool})
        config["rules"] = [
            {"name": "r", "match": {"model": "m"}, "route": "auto", "shadow": {"model": "s"}}
        ]
        assert (await reload(gateway, config)).status == 200
        await gateway.until(lambda: runtime(gateway).models["s"].pool.ready == 1)
        await gateway.infer(question(1), x_request_id="r")
        await gateway.until(lambda: counts(gateway)["s", "read"] == 1)
        await sampled(gateway, 1)
        assert (await label(gateway, {"request_id": "r", "label": 0})).json()["counted"] == 1
        models = {each["name"]: each["versions"] for each in (await quality_of(gateway))["models"]}
        assert models["m"][0]["by_side"]["all"]["accuracy"]["value"] == 1
        assert models["s"][0]["by_side"]["shadow"]["accuracy"]["value"] == 0


async def test_a_canary_to_be_judged_by_quality_needs_models_that_are_watched(tmp_path):
    async with watched(tmp_path) as gateway:
        config = deepcopy(gateway.config)
        model = {**config["models"][0], "name": "m-next", "served_as": "m"}
        del model["quality"]
        config["models"].append(model)
        canary = {"model": "m-next", "share": 5, "rollback": {"accuracy": {"margin": 0.1}}}
        config["rules"] = [
            {"name": "c", "match": {"model": "m"}, "route": "auto", "canary": canary}
        ]
        reply = await reload(gateway, config)
        assert reply.status == 422
        assert "needs quality settings of m-next" in reply.body.decode()
