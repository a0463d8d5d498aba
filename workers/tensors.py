"""Tensor elements <-> JSON text and raw bytes.

Decides whether elements fit their datatype and shape. Knows no requests and no models. Long
lists are converted in slices: each conversion holds the interpreter, and the event loop must get
it back in between.
"""

import math
import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from workers.protocol import MAX_RANK, NUMPY_TYPES, Array, Datatype, InvalidRequest, Tensor

_HALVES = (Datatype.FP16, Datatype.BF16)
_OPENING: Final = re.compile(rb"[\[ \t\r\n]*")
_LENGTH_PREFIX = struct.Struct("<I")
_SLICE_BYTES: Final = 256 * 1024
_SLICE_ELEMENTS: Final = 32 * 1024


def binary_to_array(
    name: str, datatype: Datatype, shape: tuple[int, ...], raw: memoryview
) -> Array:
    """The tensor in raw little-endian bytes; shares their memory where it can.

    Raises InvalidRequest, naming the tensor, where the bytes do not fit datatype and shape.
    """
    count = math.prod(shape)
    if datatype is Datatype.BYTES:
        return _split_bytes(name, raw, count).reshape(shape)
    dtype = NUMPY_TYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InvalidRequest(
            f"input {name!r}: {datatype} of shape {list(shape)} takes {count * dtype.itemsize} "
            f"bytes, got {len(raw)}"
        )
    if datatype is Datatype.BOOL:  # any non-zero byte is true, as in C
        return np.frombuffer(raw, np.uint8).astype(np.bool_).reshape(shape)
    array = np.frombuffer(raw, dtype).reshape(shape)
    # The JSON part has any length, so tensors may start anywhere; kernels expect alignment.
    return array if array.flags.aligned else array.copy()


def _split_bytes(name: str, raw: memoryview, count: int) -> Array:
    elements: list[bytes] = []
    offset = 0
    while offset < len(raw):
        start = offset + _LENGTH_PREFIX.size
        if start > len(raw):
            raise InvalidRequest(f"input {name!r}: a BYTES length is cut off at byte {offset}")
        end = start + _LENGTH_PREFIX.unpack_from(raw, offset)[0]
        if end > len(raw):
            raise InvalidRequest(f"input {name!r}: a BYTES element is cut off at byte {start}")
        elements.append(bytes(raw[start:end]))
        offset = end
    if len(elements) != count:
        raise InvalidRequest(
            f"input {name!r}: the shape asks for {count} BYTES elements, got {len(elements)}"
        )
    return bytes_array(elements)


def bytes_array(elements: list[bytes]) -> Array:
    """BYTES elements as a flat array."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


@lru_cache(maxsize=512)  # 14 datatypes x at most 32 depths
def _data_decoder(datatype: Datatype, depth: int) -> msgspec.json.Decoder[Any]:
    shape_type: Any = _element_type(datatype)
    for _ in range(depth):
        shape_type = list[shape_type]
    return msgspec.json.Decoder(shape_type)


def _element_type(datatype: Datatype) -> type:
    if datatype is Datatype.BYTES:
        return str
    if datatype is Datatype.BOOL:
        return bool
    return float if datatype in (Datatype.FP32, Datatype.FP64) else int


def json_to_array(name: str, datatype: Datatype, shape: tuple[int, ...], text: bytes) -> Array:
    """The elements of a JSON list, flat in row order or nested like `shape`.

    Raises InvalidRequest, naming the tensor, for other types, values out of range, or another
    number of elements.
    """
    _refuse_halves(name, datatype)
    depth = _depth(text)
    if depth not in (1, len(shape)):
        raise InvalidRequest(
            f"input {name!r}: data is nested {depth} deep; give a flat list or one nested "
            f"like the shape {list(shape)}"
        )
    if depth > 1:
        array = _to_array(name, datatype, _decode(name, datatype, text, depth), is_flat=depth == 1)
        if array.shape != shape:
            raise InvalidRequest(
                f"input {name!r}: declared shape {list(shape)}, data has {list(array.shape)}"
            )
        return array
    array = _flat_array(name, datatype, text)
    if array.size != math.prod(shape):
        raise InvalidRequest(
            f"input {name!r}: shape {list(shape)} takes {math.prod(shape)} elements, "
            f"got {array.size}"
        )
    return array.reshape(shape)


def rows_to_array(name: str, datatype: Datatype, text: bytes) -> Array:
    """The tensor in a JSON list that is nested as its shape.

    Raises InvalidRequest, naming the tensor, where elements do not fit or the list is ragged.
    """
    _refuse_halves(name, datatype)
    depth = _depth(text)
    if not 0 < depth <= MAX_RANK:
        raise InvalidRequest(f"input {name!r}: data must be a list of at most {MAX_RANK} levels")
    return _to_array(name, datatype, _decode(name, datatype, text, depth), is_flat=depth == 1)


def _refuse_halves(name: str, datatype: Datatype) -> None:
    if datatype in _HALVES:
        raise InvalidRequest(f"input {name!r}: {datatype} travels only as binary data")


def _flat_array(name: str, datatype: Datatype, text: bytes) -> Array:
    if len(text) <= _SLICE_BYTES or datatype is Datatype.BYTES:
        return _to_array(name, datatype, _decode(name, datatype, text, 1), is_flat=True)
    slices = [
        _to_array(name, datatype, _decode(name, datatype, b"[%b]" % part, 1), is_flat=True)
        for part in _slices(name, text)
    ]
    return np.concatenate(slices)


def _slices(name: str, text: bytes) -> Iterator[bytes]:
    """A long flat list of numbers in parts, cut at commas."""
    inner = text.strip()[1:-1]
    start = 0
    while start <= len(inner):
        cut = inner.find(b",", start + _SLICE_BYTES)
        end = len(inner) if cut < 0 else cut
        part = inner[start:end]
        if not part.strip():  # by itself it would be a valid empty list
            raise InvalidRequest(f"input {name!r}: data has a comma too many")
        yield part
        start = end + 1


def _depth(text: bytes) -> int:
    """How many lists open before the first value; enough to tell flat from nested."""
    opening = _OPENING.match(text, 0, 8 * MAX_RANK)
    return opening[0].count(b"[") if opening else 0


def _decode(name: str, datatype: Datatype, text: bytes, depth: int) -> list[Any]:
    try:
        values: list[Any] = _data_decoder(datatype, depth).decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"input {name!r}: data is not {datatype}: {error}") from error
    return values


def _to_array(name: str, datatype: Datatype, values: list[Any], *, is_flat: bool) -> Array:
    if datatype is Datatype.BYTES:
        return _bytes_array(name, values)
    try:
        if datatype is Datatype.FP32 and is_flat:
            # As numpy would, overflow included, in half the time.
            packed = struct.pack(f"<{len(values)}f", *values)
            return np.frombuffer(packed, NUMPY_TYPES[datatype])
        with np.errstate(over="raise"):
            return np.array(values, dtype=NUMPY_TYPES[datatype])
    except (OverflowError, FloatingPointError) as error:
        raise InvalidRequest(f"input {name!r}: a value is out of range for {datatype}") from error
    except ValueError as error:
        raise InvalidRequest(f"input {name!r}: data is ragged: {error}") from error


def _bytes_array(name: str, values: list[Any]) -> Array:
    try:
        texts = np.array(values, dtype=np.dtypes.StringDType()) if values else np.array([], object)
    except ValueError as error:
        raise InvalidRequest(f"input {name!r}: data is ragged: {error}") from error
    flat = [str(text).encode() for text in texts.ravel()]
    return bytes_array(flat).reshape(texts.shape)


def array_to_binary(tensor: Tensor) -> bytes:
    """The tensor as it travels in the binary extension."""
    if tensor.datatype is Datatype.BYTES:
        return b"".join(
            _LENGTH_PREFIX.pack(len(element)) + element for element in tensor.array.ravel()
        )
    dtype = NUMPY_TYPES[tensor.datatype]
    return np.ascontiguousarray(tensor.array, dtype=dtype).tobytes()


def array_to_json(tensor: Tensor) -> msgspec.Raw | list[Any]:
    """The tensor as what is encoded to a flat JSON list; NaN and infinities become null.

    Raises InvalidRequest for what has no JSON form: FP16, BF16, and BYTES that are not UTF-8.
    """
    if tensor.datatype in _HALVES:
        raise InvalidRequest(
            f"output {tensor.name!r} is {tensor.datatype}, which has no JSON form; "
            "ask for binary_data"
        )
    flat = tensor.array.ravel()
    if flat.size <= _SLICE_ELEMENTS and flat.dtype != object:
        short: list[Any] = flat.tolist()
        return short
    try:
        parts = [
            _encode(flat[start : start + _SLICE_ELEMENTS])
            for start in range(0, flat.size, _SLICE_ELEMENTS)
        ]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"output {tensor.name!r} is not UTF-8, so it has no JSON form; ask for binary_data"
        ) from error
    return msgspec.Raw(b"[%b]" % b",".join(parts))


def _encode(elements: Array) -> bytes:
    values: list[Any] = elements.tolist()
    if elements.dtype == object:
        values = [element.decode() for element in values]
    return msgspec.json.encode(values)[1:-1]
