import gzip
import json
import zlib
from random import Random

import pytest

from router.domain.errors import InvalidRequestError
from router.gateway.protocols.parameters import Parameters, read_parameters

BODY = json.dumps(
    {"inputs": [], "parameters": {"timeout": 1000, "priority": 1, "sequence_id": 7, "other": {}}}
).encode()
TOLD = Parameters(timeout=1000, priority=1, sequence_id=7)
LENGTH = "inference-header-content-length"


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (BODY, {}, TOLD),
        (BODY + b"\x00\xff", {LENGTH: str(len(BODY))}, TOLD),
        (b"\x00\xff", {LENGTH: "0"}, Parameters()),
        (gzip.compress(BODY), {"content-encoding": "gzip"}, TOLD),
        (zlib.compress(BODY), {"content-encoding": "deflate"}, TOLD),
        (
            gzip.compress(BODY + b"\x00"),
            {"content-encoding": "gzip", LENGTH: str(len(BODY))},
            TOLD,
        ),
        (b'{"inputs": []}', {}, Parameters()),
        (
            gzip.compress(BODY + b"\x00" * (3 << 20)),
            {"content-encoding": "gzip", LENGTH: str(len(BODY))},
            TOLD,
        ),
        (gzip.compress(BODY + b" " * 900_000), {"content-encoding": "gzip"}, TOLD),
        (b'{"parameters": {"sequence_id": "abc"}}', {}, Parameters(sequence_id="abc")),
    ],
    ids=[
        "json",
        "json before binary tensors",
        "one raw tensor",
        "gzip",
        "deflate",
        "gzip with binary tensors",
        "none given",
        "gzip with large tensors, which are not unpacked",
        "gzip of what shrinks well",
        "a sequence named by text",
    ],
)
async def test_parameters(body, headers, expected):
    assert await read_parameters(body, headers) == expected


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {}),
        (b"\xff", {}),
        (b'{"parameters": {"timeout": "soon"}}', {}),
        (b'{"parameters": {"timeout": 1.5}}', {}),
        (b'{"parameters": {"sequence_id": []}}', {}),
        (BODY, {LENGTH: "5"}),
        (BODY, {LENGTH: "-1"}),
        (BODY, {LENGTH: "9" * 5000}),
        (BODY, {"content-encoding": "gzip"}),
        (gzip.compress(BODY)[:20], {"content-encoding": "gzip"}),
        (gzip.compress(b" " * (17 << 20)), {"content-encoding": "gzip"}),
        (gzip.compress(BODY + b" " * (2 << 20)), {"content-encoding": "gzip"}),
        (gzip.compress(BODY), {"content-encoding": "gzip", LENGTH: str(2 << 20)}),
        (b'{"parameters": {"x": ' + b"[" * 2000 + b"]" * 2000 + b"}}", {}),
        (b'{"inputs": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}", {}),
        (b'{"parameters": {"priority": 1}, "parameters": {"priority": 2}}', {}),
    ],
    ids=[
        "broken json",
        "no text",
        "a timeout that is a word",
        "a timeout that is not whole",
        "a sequence that is a list",
        "a length that cuts the json",
        "a negative length",
        "an absurd length",
        "not gzip",
        "cut gzip",
        "a bomb",
        "a bomb of less than the limit, by its ratio",
        "a length that would make it one",
        "nested parameters",
        "nested inputs",
        "parameters twice",
    ],
)
async def test_what_is_refused(body, headers):
    with pytest.raises(InvalidRequestError, match="not a valid inference request"):
        await read_parameters(body, headers)


@pytest.mark.parametrize("coding", ["identity", "deflate"])
async def test_they_are_found_behind_more_than_16_mib(coding):
    text = Random(7).randbytes(1 << 16).hex().encode() * 150
    body = b'{"inputs": ["%b"], "parameters": {"timeout": 7}}' % text
    assert len(body) > 18 << 20
    sent = zlib.compress(body, 1) if coding == "deflate" else body
    assert (await read_parameters(sent, {"content-encoding": coding})).timeout == 7
