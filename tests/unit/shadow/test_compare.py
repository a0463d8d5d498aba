"""Which answers are the same, whatever way their numbers travelled."""

import gzip
import json
import zlib
from struct import pack

import numpy as np
import pytest

from router.domain.request import AnswerForm
from router.quality.tensors import Answer, UnreadableAnswerError, outputs_of
from router.shadow.compare import compare

OIP = AnswerForm.TENSORS


def output(data, datatype="FP32", shape=None, name="y"):
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def as_json(*outputs, status=200, **extra) -> Answer:
    return Answer(status, {}, json.dumps({"outputs": list(outputs), **extra}).encode())


def as_binary(*arrays, names="yz", datatypes=None) -> Answer:
    tails = [a if isinstance(a, bytes) else a.tobytes() for a in arrays]
    kinds = datatypes or ["FP32"] * len(arrays)
    outputs = [
        {
            "name": names[n],
            "datatype": kinds[n],
            "shape": [len(arrays[n])] if not isinstance(arrays[n], bytes) else [-1],
            "parameters": {"binary_data_size": len(tail)},
        }
        for n, tail in enumerate(tails)
    ]
    head = json.dumps({"outputs": outputs}).encode()
    length = {"inference-header-content-length": str(len(head))}
    return Answer(200, length, head + b"".join(tails))


def f32(*values: float):
    return np.array(values, "<f4")


def strings(*items: bytes) -> bytes:
    return b"".join(pack("<I", len(item)) + item for item in items)


@pytest.mark.parametrize(
    ("ours", "theirs", "is_match", "difference"),
    [
        (as_json(output([1.0, 2.0])), as_json(output([1.0, 2.0]), id="x"), True, 0),
        (as_json(output([1.0])), as_json(output([1.0005])), True, 0.0005),
        (as_json(output([1000.0])), as_json(output([1000.5])), True, 0.5),
        (as_json(output([1.0])), as_json(output([1.5])), False, 0.5),
        (as_json(output([1.0, 2.0])), as_binary(f32(1.0, 2.0)), True, 0),
        (as_binary(f32(1), f32(2)), as_binary(f32(1), f32(3)), False, 1),
        (as_json(output([1.0])), as_json(output([1], "INT64")), False, 0),
        (as_json(output([1.0])), as_json(output([1.0], name="z")), False, 0),
        (as_json(output([1.0])), as_json(output([1.0], shape=[1, 1])), False, 0),
        (as_json(output([[1.0, 2.0]], shape=[2])), as_json(output([1, 2])), True, 0),
        (as_json(output([1.0])), as_json(output([1.0]), status=500), False, 0),
        (as_binary(f32(np.nan)), as_binary(f32(np.nan)), True, 0),
        (as_binary(f32(np.inf, 1)), as_binary(f32(1, 1)), False, 0),
        (as_json(output([True], "BOOL")), as_json(output([False], "BOOL")), False, 1),
        (as_json(output([0], "UINT8")), as_json(output([255], "UINT8")), False, 255),
        (as_json(output(["a", "b"], "BYTES")), as_json(output(["a", "c"], "BYTES")), False, 0),
        (
            as_json(output(["a", "é"], "BYTES", [-1])),
            as_binary(strings(b"a", "é".encode()), datatypes=["BYTES"]),
            True,
            0,
        ),
        (
            as_json(output([1.5], "BF16")),
            as_binary(np.array([0x3FC0], "<u2"), datatypes=["BF16"]),
            True,
            0,
        ),
    ],
    ids=[
        "equal but for the id",
        "within the absolute tolerance",
        "within the relative tolerance",
        "beyond both",
        "json and binary",
        "the second of two binary outputs",
        "another datatype",
        "another name",
        "another shape",
        "nested and flat json",
        "another status",
        "not a number on both sides",
        "infinity on one side",
        "booleans have no tolerance",
        "unsigned numbers do not wrap",
        "strings",
        "strings in json and binary",
        "bfloat16 in json and binary",
    ],
)  # fmt: skip
def test_answers(ours, theirs, is_match, difference):
    for one, other in ((ours, theirs), (theirs, ours)):
        found = compare(OIP, one, other, 1e-3)
        assert found.is_match is is_match
        assert found.max_difference == pytest.approx(difference, rel=1e-3)
        assert bool(found.text) is not is_match


def test_a_mismatch_is_told_in_numbers():
    found = compare(OIP, as_json(output([1.0, 2.0, 3.0])), as_json(output([1.0, 5.0, 4.0])), 1e-3)
    assert found.text == "output 'y': 2 of 3 numbers differ, by up to 3"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_answers_are_read(coding):
    plain = as_json(output([1.0]))
    body = gzip.compress(plain.body) if coding == "gzip" else zlib.compress(plain.body)
    packed = Answer(200, {"content-encoding": coding}, body)
    assert compare(OIP, plain, packed, 0.0).is_match


@pytest.mark.parametrize(
    ("protocol", "ours", "theirs", "is_match"),
    [
        (
            AnswerForm.PREDICTIONS,
            b'{"predictions":[[1.0],[2]]}',
            b'{"predictions": [[1], [2.0001]]}',
            True,
        ),
        (AnswerForm.PREDICTIONS, b'{"predictions":[1]}', b'{"predictions":[2]}', False),
        (AnswerForm.PREDICTIONS, b'{"predictions":["a"]}', b'{"predictions":["a"]}', True),
        (AnswerForm.PREDICTIONS, b'{"predictions":["a"]}', b'{"predictions":["b"]}', False),
        (AnswerForm.TEXT, b'{"id":1}', b'{"id":1}', True),
        (AnswerForm.TEXT, b'{"id":1}', b'{"id": 1}', False),
        (OIP, b"not json", b"not json", True),
        (OIP, b"not json", b'{"outputs":[]}', False),
    ],
    ids=[
        "predictions within the tolerance",
        "predictions beyond it",
        "the same words",
        "other words",
        "the same bytes",
        "other bytes",
        "unreadable and the same",
        "unreadable on one side",
    ],
)
def test_other_answers(protocol, ours, theirs, is_match):
    assert (
        compare(protocol, Answer(200, {}, ours), Answer(200, {}, theirs), 1e-3).is_match is is_match
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {"content-encoding": "br"}, b"{}"),
        Answer(200, {"content-encoding": "gzip"}, b"{}"),
        Answer(200, {"content-encoding": "gzip"}, gzip.compress(bytes(65 << 20))),
        Answer(200, {"inference-header-content-length": "x"}, b"{}"),
        as_json(output(["a"])),
        as_json(output([1.0], "FP8")),
        as_json(output([[1.0], [1.0, 2.0]])),
        as_json(output([300], "UINT8")),
        as_json({**output([]), "parameters": {"binary_data_size": 4}}),
        as_json({**output([]), "parameters": {"binary_data_size": -4}}),
        as_binary(b"\x05\0\0\0ab", datatypes=["BYTES"]),
        as_binary(b"\x05\0", datatypes=["BYTES"]),
        as_binary(b"\x05\0\0", datatypes=["FP32"]),
        Answer(200, {}, b'{"outputs":' + b"[" * 100_000),
    ],
    ids=[
        "an unknown coding", "not gzip", "a bomb", "no number", "text for numbers",
        "an unknown datatype", "ragged", "out of range", "cut short", "a negative length",
        "a string cut short", "a string's length cut short", "half a number", "deep nesting",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_so(answer):
    with pytest.raises(UnreadableAnswerError):
        outputs_of(OIP, answer)
