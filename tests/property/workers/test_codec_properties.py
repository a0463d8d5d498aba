"""Whatever tensor goes through the codec comes back as it was, in both encodings."""

import json
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.codec import decode_request, encode_response
from workers.protocol import (
    NUMPY_TYPES,
    Datatype,
    InferRequest,
    InferResponse,
    Tensor,
    WorkerError,
)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[Datatype], text: Any) -> Tensor:
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(SHAPES)
    if datatype is Datatype.BYTES:
        array = np.empty(shape, dtype=object)
        flat = array.reshape(-1)
        for index in range(flat.size):
            flat[index] = draw(text)
        array = flat.reshape(shape)
    else:
        dtype = NUMPY_TYPES[datatype]
        elements = hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
        array = draw(hnp.arrays(dtype, shape, elements=elements))
    return Tensor("t", datatype, array)


def roundtrip(tensor: Tensor, *, binary: bool) -> Tensor:
    """Encode as an answer, turn the answer's tensor into a request's input, and decode that."""
    request = InferRequest(inputs=(), binary_by_default=binary)
    body, length = encode_response(request, InferResponse("m", "1", (tensor,)))
    head = json.loads(body if length is None else body[:length])
    text = json.dumps({"inputs": head["outputs"]}).encode()
    tail = b"" if length is None else body[length:]
    return decode_request(text + tail, None if length is None else len(text), ()).inputs[0]


def same(left: Tensor, right: Tensor) -> bool:
    return (
        left.datatype is right.datatype
        and left.array.shape == right.array.shape
        and left.array.dtype == right.array.dtype
        and left.array.tolist() == right.array.tolist()
    )


@given(tensors(list(Datatype), st.binary(max_size=8)))
@settings(deadline=None, max_examples=200)
def test_binary_roundtrip(tensor: Tensor) -> None:
    assert same(roundtrip(tensor, binary=True), tensor)


@given(
    tensors(
        [d for d in Datatype if d not in (Datatype.FP16, Datatype.BF16)],
        st.text(max_size=8).map(str.encode),
    )
)
@settings(deadline=None, max_examples=200)
def test_json_roundtrip(tensor: Tensor) -> None:
    assert same(roundtrip(tensor, binary=False), tensor)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "y"]) | JSON_VALUES,
        "datatype": st.sampled_from([*Datatype, "BF16"]) | JSON_VALUES,
        "shape": st.lists(st.integers(-1, 2**64) | st.integers(0, 3), max_size=4) | JSON_VALUES,
    },
    optional={
        "data": JSON_VALUES,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9) | JSON_VALUES}),
    },
)


def outcome(body: bytes, length: int | None) -> object:
    """The inputs, or the reason why there are none; any other exception fails the test."""
    try:
        return decode_request(body, length, ()).inputs
    except WorkerError as error:
        return str(error)


@given(st.lists(INPUTS, max_size=3), st.binary(max_size=16), st.integers(0, 400))
@settings(deadline=None, max_examples=300)
def test_any_request_is_decoded_or_refused_with_a_reason(
    inputs: list[Any], tail: bytes, offset: int
) -> None:
    body = json.dumps({"inputs": inputs}).encode()
    for length in (None, len(body), min(offset, len(body))):
        assert outcome(body + tail, length)
