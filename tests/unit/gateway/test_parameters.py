import gzip
import json
import zlib

import pytest

from router.domain.errors import InvalidRequestError
from router.gateway.parameters import Parameters, read_parameters

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
        "a sequence named by text",
    ],
)
def test_parameters(body, headers, expected):
    assert read_parameters(body, headers) == expected


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
    ],
)
def test_what_is_refused(body, headers):
    with pytest.raises(InvalidRequestError, match="not a valid inference request"):
        read_parameters(body, headers)
