"""Rows of the V1 protocol, in and out."""

import json
from typing import Any

import numpy as np
import pytest

from workers.kserve_v1 import decode_predict, encode_predict
from workers.protocol import (
    Datatype,
    InferResponse,
    InvalidRequest,
    PayloadTooLarge,
    Tensor,
    TensorSpec,
    WorkerError,
)

X = TensorSpec("x", Datatype.FP32, (-1, 2))
TEXT = TensorSpec("t", Datatype.BYTES, (-1,))
HALF = TensorSpec("h", Datatype.FP16, (-1,))


def decoded(body: Any, *specs: TensorSpec) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {t.name: t.array.tolist() for t in decode_predict(content, specs).inputs}


@pytest.mark.parametrize(
    ("instances", "specs", "expected"),
    [
        ([[1, 2], [3, 4.5]], (X,), {"x": [[1, 2], [3, 4.5]]}),
        ([{"x": [1, 2]}], (X,), {"x": [[1, 2]]}),
        ([{"x": [1, 2], "t": "é"}, {"t": "", "x": [3, 4]}], (X, TEXT), {
            "x": [[1, 2], [3, 4]], "t": ["é".encode(), b""],
        }),
        (["a", "b"], (TEXT,), {"t": [b"a", b"b"]}),
    ],
    ids=["rows of one input", "rows by name", "several inputs", "text"],
)  # fmt: skip
def test_rows_become_tensors(instances, specs, expected):
    assert decoded({"instances": instances, "signature_name": "any"}, *specs) == expected


REFUSED: list[tuple[str, Any, tuple[TensorSpec, ...], str]] = [
    ("no JSON", b"{", (X,), "not valid JSON"),
    ("no instances", {"inputs": []}, (X,), "does not fit the V1 protocol"),
    ("an empty list", {"instances": []}, (X,), "at least one"),
    ("no list", {"instances": {"x": 1}}, (X,), "must be a list"),
    ("ragged", {"instances": [[1, 2], [3]]}, (X,), "ragged"),
    ("text for numbers", {"instances": [["a", 2]]}, (X,), "data is not FP32"),
    ("out of range", {"instances": [[1e300, 2]]}, (X,), "out of range"),
    ("several inputs without names", {"instances": [[1]]}, (X, TEXT), "has 2 inputs"),
    ("rows with different names", {"instances": [{"x": [1, 2]}, {"y": 1}]}, (X,), "do not all"),
    ("rows of both kinds", {"instances": [{"x": [1, 2]}, 1]}, (X,), "does not fit"),
    ("an unknown name", {"instances": [{"z": 1}]}, (X,), "unexpected input 'z'"),
    ("halves", {"instances": [1.5]}, (HALF,), "only as binary"),
    ("nested too deeply", b'{"instances":' + b"[" * 100_000, (X,), "nested too deeply|not valid"),
    ("many levels", {"instances": json.loads("[" * 40 + "]" * 40)}, (X,), "32 levels"),
]


@pytest.mark.parametrize(
    ("body", "specs", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_no_row_is_refused(body, specs, message):
    with pytest.raises(InvalidRequest, match=message):
        decoded(body, *specs)


def test_a_body_that_would_take_much_memory_is_refused():
    body = b'{"instances":[%b[1]]}' % (b"[1]," * (3 << 20))
    with pytest.raises(PayloadTooLarge, match="V2 protocol takes more"):
        decoded(body, X)


def answer(rows: int, **arrays: Any) -> Any:
    types = {"O": Datatype.BYTES, "H": Datatype.BF16}
    outputs = tuple(
        Tensor(name, types.get(array.dtype.char, Datatype.FP32), array)
        for name, array in arrays.items()
    )
    return json.loads(encode_predict(InferResponse("m", "1", outputs), rows))["predictions"]


def test_tensors_become_rows():
    y = np.array([[1.0, np.inf], [2.0, np.nan]])
    text = np.array([b"a", "é".encode()], dtype=object)
    assert answer(2, y=y) == [[1.0, None], [2.0, None]]
    assert answer(2, y=y, t=text) == [{"y": [1.0, None], "t": "a"}, {"y": [2.0, None], "t": "é"}]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 1)),
        np.array(1.0),
        np.array([b"\xff", b""], dtype=object),
        np.zeros(2, np.uint16),
    ],
    ids=["another number of rows", "no rows", "no text", "BF16"],
)
def test_what_has_no_row_for_each_instance_is_refused(array):
    with pytest.raises(WorkerError):
        answer(2, y=array)
