import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from tests.fakes.oip import binary_input, infer_json, json_input
from workers.codec import decode_request, encode_response, parse_header_length
from workers.compression import choose_coding, compress, decompress
from workers.protocol import (
    Datatype,
    InferRequest,
    InferResponse,
    InvalidRequest,
    PayloadTooLarge,
    RequestedOutput,
    Tensor,
    TensorSpec,
    UnsupportedEncoding,
    UnsupportedFeature,
)


def decode(body: bytes, header_length: int | None = None, *specs: TensorSpec) -> InferRequest:
    return decode_request(body, header_length, specs)


def with_binary(head: bytes, *parts: bytes) -> tuple[bytes, int]:
    return head + b"".join(parts), len(head)


JSON_TENSORS = [
    ("flat floats", json_input("x", "FP32", [2, 2], [1, 2.5, 3, 4]), [[1, 2.5], [3, 4]]),
    ("nested floats", json_input("x", "FP64", [2, 1], [[1], [2]]), [[1], [2]]),
    ("large unsigned", json_input("x", "UINT64", [1], [2**64 - 1]), [2**64 - 1]),
    ("smallest signed", json_input("x", "INT8", [2], [-128, 127]), [-128, 127]),
    ("booleans", json_input("x", "BOOL", [2], [True, False]), [True, False]),
    ("text", json_input("x", "BYTES", [2], ["é", ""]), ["é".encode(), b""]),
    ("nested text", json_input("x", "BYTES", [1, 2], [["a", "b"]]), [[b"a", b"b"]]),
    ("empty", json_input("x", "FP32", [0, 3], []), np.zeros((0, 3))),
    ("scalar shape", json_input("x", "INT32", [], [7]), 7),
]


@pytest.mark.parametrize(
    ("tensor", "expected"), [r[1:] for r in JSON_TENSORS], ids=[r[0] for r in JSON_TENSORS]
)
def test_json_tensor_is_decoded(tensor: Any, expected: Any) -> None:
    decoded = decode(infer_json(tensor)).inputs[0]
    assert decoded.array.tolist() == (
        expected.tolist() if hasattr(expected, "tolist") else expected
    )
    assert list(decoded.array.shape) == tensor["shape"]
    assert decoded.datatype == tensor["datatype"]


def test_long_list_is_decoded_in_slices_without_losing_a_value() -> None:
    values = list(range(200_000))
    decoded = decode(infer_json(json_input("x", "INT32", [200_000], values)))
    assert decoded.inputs[0].array.tolist() == values


@pytest.mark.parametrize("suffix", [b",]", b",,1]", b", ]"], ids=["last", "twice", "blank"])
def test_comma_too_many_in_a_long_list_is_refused(suffix: bytes) -> None:
    head = b'{"inputs":[{"name":"x","datatype":"INT32","shape":[200000],"data":['
    body = head + b",".join([b"1234567"] * 200_000) + suffix + b"}]}"
    with pytest.raises(InvalidRequest):
        decode(body)


def test_binary_and_json_tensors_mix_in_input_order() -> None:
    first, second = np.arange(3, dtype="<f2"), np.array([[True, False]])
    head = infer_json(
        binary_input("a", "FP16", [3], 6),
        json_input("b", "INT64", [1], [5]),
        binary_input("c", "BOOL", [1, 2], 2),
        id="r-1",
    )
    request = decode(*with_binary(head, first.tobytes(), second.tobytes()))
    assert [t.array.tolist() for t in request.inputs] == [[0, 1, 2], [5], [[True, False]]]
    assert request.id == "r-1"


def test_binary_bytes_elements_may_hold_any_byte() -> None:
    elements = [b"", b"\xff\x00", b"abc"]
    raw = b"".join(struct.pack("<I", len(e)) + e for e in elements)
    request = decode(*with_binary(infer_json(binary_input("s", "BYTES", [3], len(raw))), raw))
    assert request.inputs[0].array.tolist() == elements


@pytest.mark.parametrize("padding", range(8))
def test_binary_tensor_is_aligned_whatever_the_json_length(padding: int) -> None:
    head = infer_json(binary_input("x", "FP64", [2], 16), id="p" * padding)
    request = decode(*with_binary(head, np.array([1.5, -2.0]).tobytes()))
    assert request.inputs[0].array.flags.aligned
    assert request.inputs[0].array.tolist() == [1.5, -2.0]


RAW = [
    (
        "one dynamic dimension",
        TensorSpec("x", Datatype.INT16, (-1, 2)),
        b"\1\0\2\0\3\0\4\0",
        [[1, 2], [3, 4]],
    ),
    ("fixed shape", TensorSpec("x", Datatype.UINT8, (1, 3)), b"\1\2\3", [[1, 2, 3]]),
    ("text is one element", TensorSpec("x", Datatype.BYTES, (-1, 1)), b"\xffabc", [[b"\xffabc"]]),
]


@pytest.mark.parametrize(
    ("spec", "body", "expected"), [r[1:] for r in RAW], ids=[r[0] for r in RAW]
)
def test_header_length_zero_means_one_raw_tensor(
    spec: TensorSpec, body: bytes, expected: Any
) -> None:
    request = decode(body, 0, spec)
    assert request.inputs[0].array.tolist() == expected
    assert request.wants_binary("anything")


X = TensorSpec("x", Datatype.FP32, (-1, 2))
RAW_REFUSED = [
    ("two inputs", (X, X), b"\0" * 8, "one input"),
    ("two dynamic dimensions", (TensorSpec("x", Datatype.FP32, (-1, -1)),), b"\0" * 8, "dynamic"),
    ("no whole row", (X,), b"\0" * 9, "takes 8 bytes, got 9"),
]


@pytest.mark.parametrize(
    ("specs", "body", "message"), [r[1:] for r in RAW_REFUSED], ids=[r[0] for r in RAW_REFUSED]
)
def test_raw_tensor_that_fits_no_shape_is_refused(specs: Any, body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode(body, 0, *specs)


def one(datatype: str, shape: Any, data: Any) -> bytes:
    return infer_json(json_input("x", datatype, shape, data))


MALFORMED: list[tuple[str, bytes, str]] = [
    ("not JSON", b"{", "not valid JSON"),
    ("not UTF-8", b'{"inputs":[],"id":"\xff"}', "valid"),
    ("a list", b"[]", "Expected `object`"),
    ("nested too deeply", b'{"parameters":{"a":' + b"[" * 100_000, "nested too deeply"),
    ("no inputs key", b"{}", "inputs"),
    ("no inputs", b'{"inputs":[]}', "no inputs"),
    ("number as name", infer_json(json_input(1, "FP32", [1], [1])), r"\$.inputs\[0\].name"),  # type: ignore[arg-type]
    ("unknown datatype", one("FP8", [1], [1]), "'FP8' is not supported"),
    ("BF16", one("BF16", [1], [1]), "BF16 travels only as binary"),
    ("negative dimension", one("FP32", [-1], [1]), "impossible dimension -1"),
    ("overflowing dimension", one("FP32", [2**62], [1]), "impossible dimension"),
    ("huge product", one("FP32", [2**40, 2**40], [1]), "elements, got 1"),
    ("fractional dimension", one("FP32", [1.5], [1]), "shape"),
    ("too many dimensions", one("FP32", [1] * 33, [1]), "more than 32"),
    ("too few elements", one("FP32", [3], [1, 2]), "takes 3 elements, got 2"),
    ("ragged", one("FP32", [2, 2], [[1, 2], [3]]), "ragged"),
    ("ragged text", one("BYTES", [2, 2], [["a", "b"], ["c"]]), "ragged"),
    ("nested in another shape", one("FP32", [2, 2], [[1, 2]]), r"data has \[1, 2\]"),
    ("nested too shallow", one("FP32", [1, 1, 1], [[1]]), "nested 2 deep"),
    ("not a list", one("FP32", [1], 1), "nested 0 deep"),
    ("null data", one("FP32", [1], None), "nested 0 deep"),
    (
        "NaN literal",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}',
        "JSON",
    ),
    ("null element", one("FP32", [1], [None]), "is not FP32"),
    ("text as number", one("FP32", [1], ["1"]), "is not FP32"),
    ("boolean as number", one("INT32", [1], [True]), "is not INT32"),
    ("number as boolean", one("BOOL", [1], [1]), "is not BOOL"),
    ("fraction as integer", one("INT32", [1], [1.5]), "is not INT32"),
    ("out of range for UINT8", one("UINT8", [1], [256]), "out of range for UINT8"),
    ("negative unsigned", one("UINT32", [1], [-1]), "out of range for UINT32"),
    ("out of range for FP32", one("FP32", [1], [1e300]), "out of range for FP32"),
    ("FP16 as JSON", one("FP16", [1], [1]), "only as binary"),
    ("no data", infer_json({"name": "x", "datatype": "FP32", "shape": [1]}), "neither data nor"),
    (
        "same input twice",
        infer_json(json_input("x", "FP32", [1], [1]), json_input("x", "FP32", [1], [1])),
        "given twice: x",
    ),
    (
        "same output twice",
        infer_json(json_input("x", "FP32", [1], [1]), outputs=[{"name": "y"}, {"name": "y"}]),
        "named twice: y",
    ),
    (
        "binary_data is no flag",
        infer_json(
            json_input("x", "FP32", [1], [1]),
            outputs=[{"name": "y", "parameters": {"binary_data": 1}}],
        ),
        "binary_data must be true or false",
    ),
    (
        "negative timeout",
        infer_json(json_input("x", "FP32", [1], [1]), parameters={"timeout": -5}),
        "timeout must be",
    ),
    ("binary without header length", infer_json(binary_input("x", "FP32", [1], 4)), "only 0 bytes"),
]


@pytest.mark.parametrize(
    ("body", "message"), [r[1:] for r in MALFORMED], ids=[r[0] for r in MALFORMED]
)
def test_malformed_request_is_refused_with_its_reason(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode(body)


BINARY_REFUSED: list[tuple[str, Any, bytes, str]] = [
    ("truncated", binary_input("x", "FP32", [2], 8), b"\0" * 7, "only 7 bytes follow"),
    (
        "size differs from shape",
        binary_input("x", "FP32", [2], 4),
        b"\0" * 4,
        "takes 8 bytes, got 4",
    ),
    ("bytes left over", binary_input("x", "FP32", [1], 4), b"\0" * 5, "1 bytes after the last"),
    ("negative size", binary_input("x", "FP32", [1], -4), b"\0" * 4, "number of bytes"),
    ("size is text", binary_input("x", "FP32", [1], "4"), b"\0" * 4, "number of bytes"),
    ("size is a flag", binary_input("x", "INT8", [1], True), b"\0", "number of bytes"),
    ("huge shape", binary_input("x", "FP64", [2**40, 2**40], 8), b"\0" * 8, "got 8"),
    ("cut off length", binary_input("x", "BYTES", [1], 3), b"\1\0\0", "length is cut off"),
    ("cut off element", binary_input("x", "BYTES", [1], 5), b"\2\0\0\0a", "element is cut off"),
    (
        "lying length",
        binary_input("x", "BYTES", [1], 5),
        b"\xff\xff\xff\xffa",
        "element is cut off",
    ),
    (
        "too few elements",
        binary_input("x", "BYTES", [2], 4),
        b"\0\0\0\0",
        "2 BYTES elements, got 1",
    ),
    (
        "data as well",
        {**binary_input("x", "INT8", [1], 1), "data": [1]},
        b"\0",
        "both data and binary_data_size",
    ),
]


@pytest.mark.parametrize(
    ("tensor", "raw", "message"),
    [r[1:] for r in BINARY_REFUSED],
    ids=[r[0] for r in BINARY_REFUSED],
)
def test_wrong_binary_tensor_is_refused(tensor: Any, raw: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode(*with_binary(infer_json(tensor), raw))


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None])
def test_classification_must_be_a_number_of_classes(value: object) -> None:
    outputs = [{"name": "y", "parameters": {"classification": value}}]
    with pytest.raises(InvalidRequest, match="classification must be a number"):
        decode(infer_json(json_input("x", "FP32", [1], [1]), outputs=outputs))


@pytest.mark.parametrize("parameter", ["shared_memory_region"])
def test_features_not_offered_are_named(parameter: str) -> None:
    body = infer_json(
        json_input("x", "FP32", [1], [1]),
        outputs=[{"name": "y", "parameters": {parameter: 1}}],
    )
    with pytest.raises(UnsupportedFeature, match=parameter) as caught:
        decode(body)
    assert caught.value.status == 501


def test_unknown_fields_of_other_servers_are_ignored() -> None:
    body = infer_json(json_input("x", "FP32", [1], [1], extra=1), model_name="m")
    assert decode(body).inputs[0].array.tolist() == [1]


def test_timeout_parameter_is_in_microseconds() -> None:
    body = infer_json(json_input("x", "FP32", [1], [1]), parameters={"timeout": 1_500_000})
    assert decode(body).timeout_s == 1.5


@pytest.mark.parametrize("value", ["-1", "1.0", "x", "", "9" * 13, "²", "101"])
def test_header_length_must_be_a_number_within_the_body(value: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_header_length(value, 100)


def test_header_length_is_optional() -> None:
    assert parse_header_length(None, 5) is None
    assert parse_header_length("5", 5) == 5


def answer(**changes: Any) -> tuple[InferRequest, InferResponse]:
    outputs = (
        Tensor("a", Datatype.FP32, np.array([[1.5, np.nan]], np.float32)),
        Tensor("b", Datatype.BYTES, np.array([b"x"], dtype=object)),
    )
    return InferRequest(inputs=(), **changes), InferResponse("m", "3", outputs, "id-1")


def test_response_is_json_unless_binary_is_asked_for() -> None:
    body, json_length = encode_response(*answer())
    assert json_length is None
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "id-1",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]},
            {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["x"]},
        ],
    }


def test_binary_output_follows_the_json() -> None:
    body, json_length = encode_response(*answer(binary_by_default=True))
    head = json.loads(body[:json_length])
    assert [o["parameters"]["binary_data_size"] for o in head["outputs"]] == [8, 5]
    assert body[json_length:] == np.array([1.5, np.nan], "<f4").tobytes() + b"\1\0\0\0x"


def test_one_output_may_be_binary_and_the_other_not() -> None:
    request, response = answer(
        outputs=(RequestedOutput("a", binary=False), RequestedOutput("b")), binary_by_default=True
    )
    body, json_length = encode_response(request, response)
    head = json.loads(body[:json_length])
    assert head["outputs"][0]["data"] == [1.5, None]
    assert body[json_length:] == b"\1\0\0\0x"


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        (Datatype.FP16, np.zeros(1, np.float16)),
        (Datatype.BYTES, np.array([b"\xff"], dtype=object)),
    ],
    ids=["half floats", "bytes that are no text"],
)
def test_output_without_json_form_asks_for_binary(datatype: Datatype, array: Any) -> None:
    response = InferResponse("m", "1", (Tensor("y", datatype, array),))
    with pytest.raises(InvalidRequest, match="ask for binary_data"):
        encode_response(InferRequest(inputs=()), response)


def test_long_output_is_encoded_in_slices_without_losing_a_value() -> None:
    array = np.arange(100_000, dtype=np.int32)
    response = InferResponse("m", "1", (Tensor("y", Datatype.INT32, array),))
    body, _ = encode_response(InferRequest(inputs=()), response)
    assert json.loads(body)["outputs"][0]["data"] == array.tolist()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP "])
def test_body_is_inflated(coding: str) -> None:
    packed = compress(b"abc" * 100, coding.strip().lower())
    assert decompress(packed, coding, 300) == b"abc" * 100


def test_gzip_members_are_joined() -> None:
    assert decompress(gzip.compress(b"ab") + gzip.compress(b"cd"), "gzip", 4) == b"abcd"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bomb_is_refused_at_the_limit(coding: str) -> None:
    bomb = compress(bytes(50_000_000), coding)
    with pytest.raises(PayloadTooLarge, match="limit of 1000 bytes"):
        decompress(bomb, coding, 1000)


def test_bomb_of_many_members_is_refused_at_the_limit() -> None:
    with pytest.raises(PayloadTooLarge):
        decompress(gzip.compress(bytes(600)) * 2, "gzip", 1000)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"abc", "gzip"),
        (gzip.compress(b"abc")[:-1], "gzip"),
        (gzip.compress(b"abc") + b"tail", "gzip"),
        (zlib.compress(b"abc") + b"tail", "deflate"),
        (b"", "deflate"),
    ],
    ids=["plain text", "truncated", "garbage behind gzip", "garbage behind deflate", "empty"],
)
def test_corrupt_compressed_body_is_refused(body: bytes, coding: str) -> None:
    with pytest.raises(InvalidRequest):
        decompress(body, coding, 1000)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, deflate"])
def test_other_content_codings_are_unsupported(coding: str) -> None:
    with pytest.raises(UnsupportedEncoding) as caught:
        decompress(b"x", coding, 10)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.1, deflate", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=oops", None),
        (" GZIP ; q=0.5 ", "gzip"),
    ],
)
def test_response_coding_follows_accept_encoding(header: str, expected: str | None) -> None:
    assert choose_coding(header) == expected
