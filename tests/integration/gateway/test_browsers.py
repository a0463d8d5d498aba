"""Pages of other sites in browsers (CORS): off, for some, for all, whoever answers."""

import hashlib
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yaml

from tests.fakes.upstreams import Behaviour, ok
from tests.integration.harness import Harness

PAGE = "https://app.example.com"
OURS = "access-control-"
ASKS = [
    ("origin", PAGE),
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "authorization, content-type"),
]


def told(reply: Any) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in reply.headers.items()
        if name.lower().startswith(OURS)
    }


@asynccontextmanager
async def gateway_for(folder, *origins: str, warm: Behaviour | None = None, **settings: Any):
    server = {"cors": {"origins": list(origins)}, **settings.pop("server", {})}
    async with Harness(folder, warm=[warm or ok()], server=server, **settings) as gateway:
        yield gateway


async def test_a_browser_may_ask_without_a_key_and_then_send_it(tmp_path):
    key = {"name": "k", "sha256": hashlib.sha256(b"key").hexdigest(), "tenant": "t"}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump([key]))
    config = {"auth": {"api_keys_file": "keys.yaml"}}
    async with gateway_for(tmp_path, PAGE, config=config) as gateway:
        asked = await gateway.request("OPTIONS", "/v1/chat/completions", headers=ASKS)
        refused = await gateway.infer(origin=PAGE)
        sent = await gateway.infer(origin=PAGE, authorization="Bearer key")
    assert asked.status == 200
    assert told(asked) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-expose-headers": "*",
        "access-control-max-age": "600",
    }
    assert (refused.status, sent.status) == (401, 200)
    for reply in (refused, sent):  # or a page could not even read why
        assert told(reply)["access-control-allow-origin"] == PAGE
        assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
@pytest.mark.parametrize("place", ["pool", "serverless"])
async def test_each_answer_says_it_once(tmp_path, fast_path, place):
    behaviour = ok(access_control_allow_origin="https://old.example.com")
    server = {"fast_path": fast_path}
    settings = {"server": server, "function": ok()}
    async with gateway_for(tmp_path, PAGE, warm=behaviour, **settings) as gateway:
        replies = [await gateway.infer(origin=PAGE, x_router_backend=place) for _ in range(3)]
        other = [await gateway.infer(origin=origin) for origin in ("null", PAGE + ".evil", "x")]
        none = await gateway.infer()
    for reply in replies:
        assert reply.status == 200
        assert reply.headers["x-router-backend"] == place
        assert reply.headers.getall("access-control-allow-origin") == [PAGE]
    # They are served like any other: who may call is not for CORS to say.
    assert {reply.status for reply in (*other, none)} == {200}
    assert not [reply for reply in other if PAGE in told(reply).values()]


@pytest.mark.parametrize("origins", [(), ("https://other.example.com",)], ids=["off", "others"])
async def test_without_leave_a_page_is_told_nothing(tmp_path, origins):
    async with gateway_for(tmp_path, *origins) as gateway:
        asked = await gateway.request("OPTIONS", "/v2/models/m/infer", headers=ASKS)
        sent = await gateway.infer(origin=PAGE)
    assert (asked.status, told(asked)) == (405, {})
    assert (sent.status, told(sent)) == (200, {})


async def test_a_star_is_for_every_page(tmp_path):
    async with gateway_for(tmp_path, "*") as gateway:
        sent = await gateway.infer(origin="null")
        strange = [("origin", "x"), ("access-control-request-method", "POST")]
        bad = [*strange, ("access-control-request-headers", "a b;")]
        asked = await gateway.request("OPTIONS", "/v2", headers=bad)
    assert told(sent)["access-control-allow-origin"] == "*"
    assert "access-control-allow-headers" not in told(asked)
