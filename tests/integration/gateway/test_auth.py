import hashlib
import json
from typing import Any

import pytest
import yaml

from tests.fakes.upstreams import ok
from tests.integration.harness import Harness

KEY = "secret-key-of-nightly"


def entry(name, key, **facts) -> Any:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **facts}


@pytest.fixture
async def gateway(tmp_path):
    keys = [
        entry("nightly", KEY, tenant="batch"),
        entry("limited", "limited", tenant="t", rate_per_s=0.1, burst=2),
        entry("other", "other", tenant="t", models=["bert-*"]),
    ]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    rule = {"name": "batch", "match": {"tenant": ["batch"]}, "route": "serverless"}
    config = {"auth": {"api_keys_file": "keys.yaml"}, "rules": [rule]}
    async with Harness(tmp_path, warm=[ok()], function=ok(), config=config) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "is needed"),
        ({"authorization": "Bearer wrong"}, "not known"),
        ({"x_api_key": "wrong"}, "not known"),
        ({"authorization": f"Basic {KEY}"}, "is needed"),
        ({"authorization": "Bearer " + "x" * 5000}, "not known"),
    ],
    ids=["no key", "a wrong key", "a wrong x-api-key", "another scheme", "an absurd key"],
)
async def test_without_a_valid_key_nothing_is_answered(gateway, headers, told):
    reply = await gateway.infer(**headers)
    assert reply.status == 401
    assert told in reply.json()["error"]
    assert reply.headers["www-authenticate"].startswith("Bearer")
    listed = await gateway.request("GET", "/v2/models")
    assert listed.status == 401
    assert gateway.warm[0].received == gateway.function.received == []


async def test_a_key_is_refused_before_its_body_is_read(gateway):
    answer = await gateway.raw(
        b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"x_api_key": KEY}])
async def test_a_key_says_who_calls_and_travels_no_further(gateway, headers):
    reply = await gateway.infer(x_request_id="r", **headers)
    line = await gateway.logged("r")
    seen = json.dumps(dict(gateway.function.received[0].headers))
    assert reply.decision == ("serverless", "rule"), "the rule for the tenant"
    assert line["tenant"] == "batch"
    assert KEY not in seen


async def test_a_key_is_only_good_for_its_models(gateway):
    reply = await gateway.infer(authorization="Bearer other")
    assert reply.status == 403
    assert "'m'" in reply.json()["error"]


async def test_a_key_has_its_rate(gateway):
    replies = [await gateway.infer(authorization="Bearer limited") for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    reply = replies[-1]
    assert "over your limit" in reply.json()["error"]
    assert 5 < int(reply.headers["retry-after"]) <= 10
    assert (await gateway.infer(authorization=f"Bearer {KEY}")).status == 200


async def test_a_reload_refills_no_rate(gateway):
    for _ in range(2):
        await gateway.infer(authorization="Bearer limited")
    await gateway.write({**gateway.config, "rules": []})
    assert (await gateway.ask("POST", "/v1/reload")).status == 200
    assert (await gateway.infer(authorization="Bearer limited")).status == 429


async def test_probes_need_no_key(gateway):
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert (await gateway.request("GET", path)).status == 200


async def test_errors_have_the_shape_of_the_protocol_asked(gateway):
    reply = await gateway.infer(path="/v1/chat/completions")
    assert (reply.status, reply.json()["error"]["code"]) == (401, "unauthorized")


LISTS = {
    "/v2/models": lambda listed: listed["models"],
    "/v1/models": lambda listed: [entry["id"] for entry in listed["data"]],
    "/v2/repository/index": lambda listed: [entry["name"] for entry in listed],
}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(("key", "models"), [(KEY, ["m"]), ("other", [])])
async def test_a_key_sees_only_its_models(gateway, path, key, models):
    method = "POST" if path.endswith("index") else "GET"
    reply = await gateway.request(method, path, headers={"authorization": f"Bearer {key}"})
    assert LISTS[path](reply.json()) == models


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/{}/ready"),
        ("GET", "/v1/models/{}"),
        ("GET", "/v2/models/{}"),
        ("POST", "/v2/models/{}/infer"),
    ],
)
async def test_a_key_learns_nothing_of_the_models_of_others(gateway, method, path):
    told = {}
    for key in ("other", "wrong"):
        for name in ("m", "nowhere"):
            headers = {"authorization": f"Bearer {key}"}
            reply = await gateway.request(method, path.format(name), b"{}", headers)
            told[key, name] = reply.status
    assert [told["other", "m"], told["other", "nowhere"]] == [403, 403]
    assert [told["wrong", "m"], told["wrong", "nowhere"]] == [401, 401]


async def test_a_tab_before_a_key_is_space(gateway):
    head = f"GET /v2/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer\t{KEY}\r\n\r\n"
    assert (await gateway.raw(head.encode())).startswith(b"HTTP/1.1 200")


async def explained(gateway, **question) -> Any:
    asked = {"model": "m", "payload_bytes": 9, **question}
    return await gateway.ask("POST", "/v1/explain", asked)


async def test_an_explanation_is_for_the_caller_whose_key_is_named(gateway):
    told = (await explained(gateway, key="nightly")).json()
    assert (told["backend"], told["rule"]) == ("serverless", "batch")
    forbidden = await explained(gateway, key="other")
    assert (forbidden.status, "may not use model" in forbidden.json()["error"]) == (403, True)
    unknown = await explained(gateway, key=KEY)
    assert unknown.status == 400


async def test_an_explanation_leaves_out_the_fallbacks_that_a_key_may_not_use(gateway):
    spare = {**gateway.config["models"][0], "name": "spare"}
    asked = gateway.changed(fallback=["spare"], serverless={"enabled": False})
    asked["models"].append(spare)
    keys = [entry("one", "one", tenant="t", models=["m"]), entry("all", "all", tenant="t")]
    (gateway.file.parent / "keys.yaml").write_text(yaml.safe_dump(keys))
    await gateway.write(asked)
    assert (await gateway.ask("POST", "/v1/reload")).status == 200
    gateway.warm[0].is_ready = False
    await gateway.until(lambda: gateway.pool.ready == 0)
    stages = {
        key: {step["stage"] for step in (await explained(gateway, key=key)).json()["trace"]}
        for key in ("one", "all")
    }
    assert ("fallback" in stages["one"], "fallback" in stages["all"]) == (False, True)


async def test_an_explanation_knows_that_a_function_cannot_stream(gateway):
    told = (await explained(gateway, key="nightly", protocol="openai", stream=True)).json()
    assert told["backend"] != "serverless"
    assert "stream" in " ".join(step["verdict"] for step in told["trace"])


async def test_a_protocol_that_there_is_not_is_told(gateway):
    reply = await explained(gateway, protocol="grpc")
    assert (reply.status, "openai" in reply.json()["error"]) == (400, True)


async def test_tenants_requests_refusals_and_costs_are_counted(gateway):
    for _ in range(3):
        reply = await gateway.infer(authorization=f"Bearer {KEY}")
        assert reply.decision[0] == "serverless"
    answers = [(await gateway.infer(authorization="Bearer limited")).status for _ in range(3)]
    assert answers == [200, 200, 429]
    refused = await gateway.infer(authorization="Bearer other")
    unknown = await gateway.infer(authorization="Bearer wrong")
    assert (refused.status, unknown.status) == (403, 401)

    values = gateway.gateway._metrics.snapshot().values
    assert dict(values["router_tenant_requests_total"]) == {
        ("batch", "ok"): 3, ("t", "ok"): 2, ("t", "rate_limited"): 1, ("t", "client_error"): 1,
        ("", "client_error"): 1,
    }  # fmt: skip
    assert dict(values["router_refusals_total"]) == {
        ("limited", "rate_limited"): 1, ("other", "forbidden"): 1, ("", "unauthorized"): 1,
    }  # fmt: skip
    bill = sum(usd for _, usd in values["router_cost_usd_total"])
    paid = dict(values["router_tenant_cost_usd_total"])
    assert bill > 0
    assert sum(paid.values()) == pytest.approx(bill)
    assert paid["batch", "serverless"] > 0


async def test_the_log_says_what_was_refused_and_why(gateway):
    for number in range(3):
        await gateway.infer(authorization="Bearer limited", x_request_id=f"r-{number}")
    line = await gateway.logged("r-2")
    assert (line["status"], line["error"], line["tenant"]) == (429, "rate_limited", "t")
    assert line["cause"] == "you are over your limit of 0.1 requests per second"
    line = await gateway.logged("r-0")
    assert (line["error"], line["cause"]) == (None, None)
