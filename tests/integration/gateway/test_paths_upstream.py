"""No path names one model to the gateway and another one to a server behind it.

The readings are those of servers that stand before models in practice: nginx with a URI in
`proxy_pass`, which decodes and resolves a path, and WHATWG's `new URL()`, which every JavaScript
proxy calls.
"""

import re
from urllib.parse import unquote

import pytest

from tests.fakes.upstreams import ok
from tests.integration.harness import Harness

VERSIONS = [
    "..%2F..%2Fsecret",
    "..%2f..%2fsecret",
    "%2e%2e%2f%2e%2e%2fsecret",
    "..%5C..%5Csecret",
    r"..\..\secret",
    r"1\..\..\..\secret",
    "1%23",
    "1%3f",
    "1%3Fx",
    "1#",
    "1;x",
    "1%3b..",
    "%2e%2e",
    "..",
    ".",
    "%2e",
    "...%2f",
    "%252e%252e%252f%252e%252e%252fsecret",
    "1%00",
    "1%0d%0ax:y",
    "1%20",
    "1%09",
    "%c0%ae%c0%ae%c0%af",
    "%ef%bc%8f..",
    "..%u2215secret",
    "1%2f..%2f..%2f..%2fsecret",
    "1%2finfer%23",
    "",
    "1" * 101,
]
PATHS = [
    "/v2/models/m%2f..%2fsecret/infer",
    "/v2/models/m/../secret/infer",
    "/v2/models/m/%2e%2e/secret/infer",
    r"/v2/models/m\..\secret/infer",
    "/v2/models/m/infer/../../secret/infer",
    "/v2/models/m%23/infer",
    "/v2/models/m%3f/infer",
    "/v2/models/m%00/infer",
    "/v2/models/../models/secret/infer",
    "/v2//models/m/infer",
    "//secret/v2/models/m/infer",
    "/v2/models/m/infer#/../../secret/infer",
    "/v2/models/m/infer/",
    "/v1/models/..%2fsecret:predict",
    "/v1/models/m%2f..%2fsecret:predict",
    r"/v1/models/m\..\secret:predict",
]
PASSED = {
    "/v2/models/%6d/infer": "/v2/models/m/infer",
    "/v2/models/m/%69nfer": "/v2/models/m/infer",
    "/%762/models/m/versions/%31/infer": "/v2/models/m/versions/1/infer",
    "/v2/models/m/versions/1.0-rc_2/infer": "/v2/models/m/versions/1.0-rc_2/infer",
    "/v2/models/m/infer?x=/../../secret": "/v2/models/m/infer?x=/../../secret",
    "/v2/models/m/infer?trace=1&x=%20": "/v2/models/m/infer?trace=1&x=%20",
    "/v2/models/m/infer?x#/../secret": "/v2/models/m/infer?x%23/../secret",
    r"/v2/models/m/infer?\..\secret": "/v2/models/m/infer?%5C..%5Csecret",
    "http://secret/v2/models/m/infer": "/v2/models/m/infer",
    "/v1/models/%6d%3apredict": "/v1/models/m:predict",
}
REFUSED = [f"/v2/models/m/versions/{version}/infer" for version in VERSIONS] + PATHS


def resolved(segments: list[str]) -> str:
    found: list[str] = []
    for segment in segments:
        if segment == "..":
            del found[-1:]
        elif segment != ".":
            found.append(segment)
    return "/" + "/".join(found)


def nginx(target: str) -> str:
    """As `location / { proxy_pass http://s/; }` understands a target."""
    path = unquote(re.split("[?#]", target)[0], errors="surrogateescape")
    return resolved([part for part in path.split("/") if part])


def whatwg(target: str) -> str:
    """As `new URL(target, base).pathname` of a special scheme."""
    path = re.split("[?#]", target)[0].replace("\\", "/")
    path = re.sub("%2e", ".", path, flags=re.IGNORECASE)
    return resolved(path.split("/")[1:])


def test_the_readings_find_the_other_model():
    assert nginx("/v2/models/m/versions/..%2F..%2Fsecret/infer") == "/v2/models/secret/infer"
    assert whatwg(r"/v2/models/m/versions/..\..\secret/infer") == "/v2/models/secret/infer"
    assert whatwg("/v2/models/m/%2E%2e/secret/infer") == "/v2/models/secret/infer"


def inferred(gateway) -> list[str]:
    """What the replica was asked to run; a gateway also asks which versions it has."""
    return [received.target for received in gateway.warm[0].received if received.method == "POST"]


def request(target: str) -> bytes:
    return f"POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode()


@pytest.fixture(params=[True, False], ids=["fast path", "ordinary path"])
async def gateway(tmp_path, request):
    server = {"fast_path": request.param}
    async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
        assert (await gateway.infer()).status == 200, "there is a connection for the fast path"
        gateway.warm[0].received.clear()
        yield gateway


@pytest.mark.parametrize("target", REFUSED)
async def test_a_path_that_could_be_read_in_two_ways_goes_nowhere(gateway, target):
    for _ in range(2):
        answer = await gateway.raw(request(target))
        assert answer.split(b" ")[1] in {b"400", b"404", b"405"}
        assert b'{"error":"' in answer
    assert inferred(gateway) == []


@pytest.mark.parametrize(("target", "built"), PASSED.items(), ids=PASSED)
async def test_what_goes_upstream_is_built_from_what_was_understood(gateway, target, built):
    for _ in range(2):
        assert (await gateway.raw(request(target))).startswith(b"HTTP/1.1 200")
    assert inferred(gateway) == [built] * 2
    path = built.partition("?")[0]
    assert nginx(built) == whatwg(built) == path


async def test_a_configured_name_with_slashes_is_quoted(tmp_path):
    model = {"name": "org/m", "served_as": "other/n"}
    async with Harness(tmp_path, function=ok(), model=model) as gateway:
        await gateway.raw(request("/v2/models/org%2fm/versions/3/infer"))
        assert gateway.function.received[0].target == "/v2/models/other%2Fn/versions/3/infer"
