"""What each path of the three protocols asks for; the gateway's own answers."""

from dataclasses import replace
from typing import Any

import pytest

from router.backends.pool.endpoint import Endpoint
from router.domain.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NotFoundError,
    UnsupportedError,
)
from router.gateway.protocols.anthropic import ANTHROPIC
from router.gateway.protocols.base import BodyQuestion, Document, Question, Target
from router.gateway.protocols.kserve_v1 import KSERVE_V1
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.openai import OPENAI
from router.gateway.protocols.registry import protocol_of
from router.gateway.protocols.request_line import origin_form, segments_of
from router.upstream.address import parse_address
from tests.fakes.builders import NOW
from tests.fakes.runtimes import make_runtime

TWO = """
models:
  - {name: m, slo: {latency_ms: 250}, serverless: {kind: local}}
  - {name: gone, slo: {latency_ms: 250}, pool: {kind: static, urls: ["http://127.0.0.1:1"]}}
"""
NAMES = """
models:
""" + "".join(
    f"  - {{name: '{name}', slo: {{latency_ms: 250}}, pool: {{kind: static, urls: ['http://x']}}}}\n"
    for name in ["org", "org/n", "org/n/x", "llama3:8b", "ft:gpt-4o:acme::7p4", "a@b"]
)


@pytest.fixture
def runtime():
    return make_runtime(TWO)


def resolve_oip(runtime, method, path, is_ready=True, caller=None) -> Any:
    return OIP.resolve(Question(method, segments_of(path), runtime, caller, NOW, is_ready))


def resolve_v1(runtime, method, path, caller=None) -> Any:
    return KSERVE_V1.resolve(Question(method, segments_of(path), runtime, caller, NOW))


def resolve_openai(runtime, method, path) -> Any:
    return OPENAI.resolve(Question(method, segments_of(f"/v1/{path}"), runtime, None, NOW))


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("POST", "/v2/models/m/infer", Target(OIP, "infer", "m")),
        ("POST", "/v2/models/m/versions/2/infer", Target(OIP, "infer", "m", "2")),
        ("POST", "/v2/models/a%2Fb%20c/infer", Target(OIP, "infer", "a/b c")),
        ("GET", "/v2/models/m", Target(OIP, "", "m")),
        ("GET", "/v2/models/m/versions/1", Target(OIP, "", "m", "1")),
        ("GET", "/v2/models/m/config", Target(OIP, "config", "m")),
        ("GET", "/v2/models/m/versions/1/stats", Target(OIP, "stats", "m", "1")),
    ],
)
def test_oip_goes_to_a_backend(runtime, method, path, target):
    found = resolve_oip(runtime, method, path)
    assert found == target
    assert found.is_inference == path.endswith("infer")


@pytest.mark.parametrize(
    ("method", "path", "status", "part"),
    [
        ("GET", "/v2", 200, ("name", "hybrid-router")),
        ("GET", "/v2/", 200, ("name", "hybrid-router")),
        ("GET", "/v2/health/live", 200, ("live", True)),
        ("GET", "/v2/health/ready", 200, ("ready", True)),
        ("GET", "/v2/models", 200, ("models", ["m", "gone"])),
        ("GET", "/v2/models/m/ready", 200, ("ready", True)),
        ("GET", "/v2/models/gone/ready", 503, ("ready", False)),
        ("GET", "/v2/models/m/versions/1/ready", 200, ("name", "m")),
    ],
)
def test_oip_is_answered_here(runtime, method, path, status, part):
    document = resolve_oip(runtime, method, path)
    assert isinstance(document, Document)
    assert document.status == status
    assert isinstance(document.content, dict)
    assert part in document.content.items()


def test_oip_readiness_ends_with_a_drain_but_liveness_does_not(runtime):
    assert resolve_oip(runtime, "GET", "/v2/health/ready", is_ready=False).status == 503
    assert resolve_oip(runtime, "GET", "/v2/health/live", is_ready=False).status == 200


def test_the_repository_index_tells_each_models_state(runtime):
    states = {entry["name"]: entry["state"] for entry in index(runtime, b"")}
    assert states == {"m": "READY", "gone": "UNAVAILABLE"}
    assert [entry["name"] for entry in index(runtime, b'{"ready": true}')] == ["m"]


def index(runtime, body) -> Any:
    question = resolve_oip(runtime, "POST", "/v2/repository/index")
    assert isinstance(question, BodyQuestion)
    return question.answer(body).content


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready": 1}', b"\xff"])
def test_an_index_request_that_is_none_is_refused(runtime, body):
    with pytest.raises(InvalidRequestError, match="index request"):
        index(runtime, body)


def test_the_index_and_readiness_tell_the_versions_that_replicas_have(runtime):
    pool = runtime.models["gone"].pool
    pool.add(Endpoint("e", parse_address("http://127.0.0.1:1"), 1))
    pool.mark_ready("e", is_ready=True)
    (endpoint,) = pool.rotation.members()
    endpoint.versions = frozenset({"1", "2"})
    entries = [entry for entry in index(runtime, b"") if entry["name"] == "gone"]
    assert [(each["version"], each["state"]) for each in entries] == [
        ("1", "READY"), ("2", "READY"),
    ]  # fmt: skip
    for version, status in {"1": 200, "2": 200, "3": 503}.items():
        path = f"/v2/models/gone/versions/{version}/ready"
        assert resolve_oip(runtime, "GET", path).status == status


@pytest.mark.parametrize(
    ("path", "model", "version"),
    [
        ("/v2/models/org/n/infer", "org/n", None),
        ("/v2/models/org/n/versions/2/infer", "org/n", "2"),
        ("/v2/models/org/infer", "org", None),
        ("/v2/models/org/n/x/infer", "org/n/x", None),
        ("/v2/models/llama3:8b/infer", "llama3:8b", None),
        ("/v2/models/not/there/infer", "not/there", None),
        ("/v2/models/not/there/versions/1/infer", "not/there", "1"),
    ],
)
def test_names_with_slashes_unquoted_are_the_longest_that_there_is(path, model, version):
    runtime = make_runtime(NAMES)
    assert resolve_oip(runtime, "POST", path) == Target(OIP, "infer", model, version)


@pytest.mark.parametrize("name", ["org/n", "llama3:8b", "ft:gpt-4o:acme::7p4", "a@b"])
def test_names_of_all_kinds_in_v1(name):
    runtime = make_runtime(NAMES)
    assert resolve_v1(runtime, "POST", f"/v1/models/{name}:predict").model == name
    assert resolve_v1(runtime, "GET", f"/v1/models/{name}").content["id"] == name
    theirs = {"x-stainless-lang": "python"}
    assert protocol_of(f"/v1/models/{name}", theirs) is OPENAI
    assert protocol_of(f"/v1/models/{name}", {}) is KSERVE_V1
    assert resolve_openai(runtime, "GET", f"models/{name}").content["id"] == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/m/load"),
        ("POST", "/v2/repository/models/m/unload"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/models/m/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/x/register"),
        ("POST", "/v2/logging"),
    ],
)
def test_what_triton_can_and_a_gateway_cannot_is_refused_with_a_reason(runtime, method, path):
    with pytest.raises(UnsupportedError, match=r"gateway|shared memory"):
        resolve_oip(runtime, method, path)


def test_the_root_says_who_answers(runtime):
    assert resolve_oip(runtime, "GET", "/").content["name"] == "hybrid-router"


@pytest.mark.parametrize("path", ["/nothing", "/v2/nothing", "/v2/health/x"])
def test_a_post_to_an_unknown_path_is_told_that_it_is_unknown(runtime, path):
    with pytest.raises(NotFoundError):
        resolve_oip(runtime, "POST", path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/m/infer", "POST"),
        ("DELETE", "/v2/models/m", "GET, HEAD"),
        ("POST", "/v2/models/m/ready", "GET, HEAD"),
        ("POST", "/v2/models/m/config", "GET, HEAD"),
        ("POST", "/v2", "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
    ],
)
def test_oip_methods(runtime, method, path, allowed):
    with pytest.raises(MethodNotAllowedError) as caught:
        resolve_oip(runtime, method, path)
    assert caught.value.allowed == allowed


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/v2/nothing", NotFoundError),
        ("GET", "/v2/models/m/nothing", NotFoundError),
        ("POST", "/v2/models/m/infer/more", NotFoundError),
        ("GET", "/v2/health", NotFoundError),
        ("GET", "/v2/models/x/ready", ModelNotFoundError),
    ],
)
def test_oip_unknown(runtime, method, path, error):
    with pytest.raises(error):
        resolve_oip(runtime, method, path)


@pytest.mark.parametrize("path", ["/v2/%ff", "/v2/a%00b", "/v2/a%0d%0ab", "/v2/%1b[31m"])
def test_paths_that_are_no_text_are_refused(path):
    with pytest.raises(InvalidRequestError, match="path"):
        segments_of(path)


def test_kserve_v1(runtime):
    assert resolve_v1(runtime, "POST", "/v1/models/m:predict") == Target(KSERVE_V1, "predict", "m")
    assert resolve_v1(runtime, "POST", "/v1/models/m%3Apredict").model == "m"
    assert resolve_v1(runtime, "GET", "/v1/models/m").content["ready"] is True
    assert resolve_v1(runtime, "GET", "/v1/models/gone").content["ready"] is False


def test_the_list_of_models_has_both_shapes(runtime):
    content = resolve_v1(runtime, "GET", "/v1/models").content
    assert content["models"] == ["m", "gone"]
    assert content["object"] == "list"
    assert [entry["id"] for entry in content["data"]] == ["m", "gone"]


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/v1/models/m:predict", MethodNotAllowedError),
        ("POST", "/v1/models/m", MethodNotAllowedError),
        ("POST", "/v1/models", MethodNotAllowedError),
        ("GET", "/v1/models/x", ModelNotFoundError),
        ("POST", "/v1/models/m/predict", NotFoundError),
        ("POST", "/v1/models/m:explain", MethodNotAllowedError),
    ],
)
def test_kserve_v1_refusals(runtime, method, path, error):
    with pytest.raises(error):
        resolve_v1(runtime, method, path)


@pytest.mark.parametrize(
    "path",
    [
        "chat/completions", "completions", "embeddings", "responses", "messages", "moderations",
        "rerank", "audio/speech", "images/generations", "messages/count_tokens",
    ],
)  # fmt: skip
def test_openai_paths_leave_the_model_to_the_body(runtime, path):
    protocol = protocol_of(f"/v1/{path}", {})
    assert protocol is (ANTHROPIC if path.startswith("messages") else OPENAI)
    question = Question("POST", segments_of(f"/v1/{path}"), runtime, None, NOW)
    assert protocol.resolve(question) == Target(protocol, path, None)
    with pytest.raises(MethodNotAllowedError):
        protocol.resolve(replace(question, method="GET"))


@pytest.mark.parametrize("path", ["files", "chat", "chat/completions/x", ""])
def test_openai_unknown(runtime, path):
    with pytest.raises(NotFoundError):
        resolve_openai(runtime, "POST", path)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model": "m", "messages": []}', ("m", False)),
        (b'{"stream": true, "model": "m"}', ("m", True)),
        (b'{"stream": null, "model": "m"}', ("m", False)),
        (b'{"stream": null, "model": "m", "\\u0061": 1}', ("m", False)),
    ],
)
def test_openai_bodies(body, asked):
    found = OPENAI.asked_at_once(body)
    assert (found.model, found.stream) == asked


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"model": 5}', b'{"model": "m", "stream": "yes"}', b"{"]
)
def test_openai_bodies_that_are_none(body):
    with pytest.raises(InvalidRequestError, match="not a valid request"):
        OPENAI.asked_at_once(body)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/models?a=http://x/", "/v2/models?a=http://x/"),
        ("http://x:80/v2/models?a=b", "/v2/models?a=b"),
        ("HTTPS://u@x/v2", "/v2"),
        ("http://x", "/"),
        ("http://x?a=/v2", "/?a=/v2"),
        ("ftp://x/v2", "ftp://x/v2"),
        ("x:443", "x:443"),
        ("*", "*"),
    ],
)
def test_an_absolute_target_is_its_path_and_query(target, expected):
    assert origin_form(target) == expected
