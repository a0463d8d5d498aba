"""Bytes <-> protocol values: JSON bodies and the binary tensor extension of OIP v2.

Decides whether a body says what it claims (types, lengths, shapes) before any tensor is built
from it: no declared number is ever used to allocate memory. Never checks a tensor against a
model; `engine` does. Content codings are `compression`'s.
"""

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from workers.protocol import (
    MAX_DIMENSION,
    MAX_RANK,
    NUMPY_TYPES,
    Array,
    Datatype,
    InferRequest,
    InferResponse,
    InvalidRequest,
    RequestedOutput,
    Tensor,
    TensorSpec,
    UnsupportedFeature,
)

HEADER_LENGTH: Final = "inference-header-content-length"
JSON_TYPE: Final = "application/json"
BINARY_TYPE: Final = "application/octet-stream"

_MAX_LENGTH_DIGITS = 12
_LENGTH_PREFIX = struct.Struct("<I")
_UNSUPPORTED_PARAMETERS = ("classification", "shared_memory_region")


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()  # empty: not given


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Head(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] = []
    id: str = ""
    parameters: dict[str, Any] = {}


_head_decoder = msgspec.json.Decoder(_Head)


def parse_header_length(value: str | None, body_bytes: int) -> int | None:
    """The Inference-Header-Content-Length header as a number; None where the header is absent.

    Raises InvalidRequest unless it is a plain number within the (uncompressed) body.
    """
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_LENGTH_DIGITS):
        raise InvalidRequest(f"Inference-Header-Content-Length {value[:40]!r} is not a number")
    length = int(value)
    if length > body_bytes:
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {length}, but the uncompressed body has only "
            f"{body_bytes} bytes"
        )
    return length


def decode_request(
    body: bytes | bytearray, header_length: int | None, specs: Sequence[TensorSpec]
) -> InferRequest:
    """One request out of an uncompressed body.

    `header_length` as from `parse_header_length`; 0 means that the whole body is the raw tensor
    of a model with one input, for which alone `specs` (the model's inputs) is looked at.
    Arrays may share memory with `body`. Raises InvalidRequest or UnsupportedFeature.
    """
    if header_length == 0:
        return _raw_request(body, specs)
    view = memoryview(body)
    split = len(view) if header_length is None else header_length
    head = _parse_head(view[:split])
    _refuse_unsupported(head)
    inputs = _build_inputs(head.inputs, view[split:])
    return InferRequest(
        inputs=inputs,
        outputs=tuple(_requested_outputs(head.outputs)),
        id=head.id,
        binary_by_default=_flag(head.parameters, "binary_data_output", "parameters") or False,
        timeout_s=_timeout_s(head.parameters),
    )


def _parse_head(text: memoryview) -> _Head:
    try:
        return _head_decoder.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request does not fit the protocol: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the request's JSON is nested too deeply") from error


def _refuse_unsupported(head: _Head) -> None:
    entries: list[_Input | _Output] = [*head.inputs, *head.outputs]
    for entry in entries:
        for name in _UNSUPPORTED_PARAMETERS:
            if name in entry.parameters:
                raise UnsupportedFeature(f"tensor {entry.name!r}: {name} is not supported")


def _requested_outputs(outputs: Sequence[_Output]) -> list[RequestedOutput]:
    names = [output.name for output in outputs]
    if len(set(names)) != len(names):
        raise InvalidRequest(f"outputs are named twice: {_repeated(names)}")
    return [
        RequestedOutput(o.name, _flag(o.parameters, "binary_data", f"output {o.name!r}"))
        for o in outputs
    ]


def _flag(parameters: dict[str, Any], key: str, where: str) -> bool | None:
    value = parameters.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequest(f"{where}: {key} must be true or false")


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    value = parameters.get("timeout")
    if value is None or value == 0:  # Triton's "no timeout"
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest("parameters: timeout must be a positive number of microseconds")
    return value / 1e6


def _repeated(names: Sequence[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


def _build_inputs(inputs: Sequence[_Input], binary: memoryview) -> tuple[Tensor, ...]:
    if not inputs:
        raise InvalidRequest("the request has no inputs")
    names = [entry.name for entry in inputs]
    if len(set(names)) != len(names):
        raise InvalidRequest(f"inputs are given twice: {_repeated(names)}")
    tensors = []
    offset = 0
    for entry in inputs:
        datatype, shape = _declared(entry)
        size = _binary_size(entry, len(binary) - offset)
        if size is None:
            array = _from_json(entry, datatype, shape)
        else:
            array = _from_binary(entry.name, datatype, shape, binary[offset : offset + size])
            offset += size
        tensors.append(Tensor(entry.name, datatype, array))
    if offset != len(binary):
        raise InvalidRequest(
            f"the body has {len(binary) - offset} bytes after the last tensor; the sum of "
            "binary_data_size must be what follows the JSON"
        )
    return tuple(tensors)


def _declared(entry: _Input) -> tuple[Datatype, tuple[int, ...]]:
    try:
        datatype = Datatype(entry.datatype)
    except ValueError as error:
        raise InvalidRequest(
            f"input {entry.name!r}: datatype {entry.datatype[:40]!r} is not supported; "
            f"use one of {', '.join(Datatype)}"
        ) from error
    if len(entry.shape) > MAX_RANK:
        raise InvalidRequest(f"input {entry.name!r}: more than {MAX_RANK} dimensions")
    for dimension in entry.shape:
        if not 0 <= dimension <= MAX_DIMENSION:
            raise InvalidRequest(
                f"input {entry.name!r}: shape {entry.shape} has an impossible dimension {dimension}"
            )
    return datatype, tuple(entry.shape)


def _binary_size(entry: _Input, available: int) -> int | None:
    size = entry.parameters.get("binary_data_size")
    if size is None:
        return None
    if entry.data:
        raise InvalidRequest(f"input {entry.name!r} has both data and binary_data_size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InvalidRequest(f"input {entry.name!r}: binary_data_size must be a number of bytes")
    if size > available:
        raise InvalidRequest(
            f"input {entry.name!r}: binary_data_size is {size}, but only {available} bytes follow "
            "(is Inference-Header-Content-Length right?)"
        )
    return size


def _from_binary(name: str, datatype: Datatype, shape: tuple[int, ...], raw: memoryview) -> Array:
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
    return _object_array(elements)


def _object_array(elements: list[bytes]) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


@lru_cache(maxsize=256)  # 4 element types x at most 32 depths
def _data_decoder(element: type, depth: int) -> msgspec.json.Decoder[Any]:
    shape_type: Any = element
    for _ in range(depth):
        shape_type = list[shape_type]
    return msgspec.json.Decoder(shape_type)


def _element_type(datatype: Datatype) -> type:
    if datatype is Datatype.BYTES:
        return str
    if datatype is Datatype.BOOL:
        return bool
    return float if datatype in (Datatype.FP32, Datatype.FP64) else int


def _from_json(entry: _Input, datatype: Datatype, shape: tuple[int, ...]) -> Array:
    if not entry.data:
        raise InvalidRequest(
            f"input {entry.name!r} has neither data nor parameters.binary_data_size"
        )
    if datatype is Datatype.FP16:
        raise InvalidRequest(f"input {entry.name!r}: FP16 travels only as binary data")
    text = memoryview(entry.data)
    depth = _depth(text)
    if depth not in (1, len(shape)):
        raise InvalidRequest(
            f"input {entry.name!r}: data is nested {depth} deep; give a flat list or one nested "
            f"like the shape {list(shape)}"
        )
    values = _decode_data(entry.name, datatype, text, depth)
    if depth == 1:
        if len(values) != math.prod(shape):
            raise InvalidRequest(
                f"input {entry.name!r}: shape {list(shape)} takes {math.prod(shape)} elements, "
                f"got {len(values)}"
            )
        return _to_array(entry.name, datatype, values).reshape(shape)
    array = _to_array(entry.name, datatype, values)
    if array.shape != shape:
        raise InvalidRequest(
            f"input {entry.name!r}: declared shape {list(shape)}, data has {list(array.shape)}"
        )
    return array


def _depth(text: memoryview) -> int:
    """How many lists open before the first value; enough to tell flat from nested."""
    depth = 0
    for byte in text[: 8 * MAX_RANK]:
        if byte == ord("["):
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth


def _decode_data(name: str, datatype: Datatype, text: memoryview, depth: int) -> list[Any]:
    try:
        values: list[Any] = _data_decoder(_element_type(datatype), depth).decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"input {name!r}: data is not {datatype}: {error}") from error
    return values


def _to_array(name: str, datatype: Datatype, values: list[Any]) -> Array:
    if datatype is Datatype.BYTES:
        return _bytes_array(name, values)
    try:
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
    return _object_array(flat).reshape(texts.shape)


def _raw_request(body: bytes | bytearray, specs: Sequence[TensorSpec]) -> InferRequest:
    if len(specs) != 1:
        raise InvalidRequest(
            f"a raw tensor body fits only models with one input; this one has {len(specs)}"
        )
    spec = specs[0]
    if spec.datatype is Datatype.BYTES:
        array = _object_array([bytes(body)])
        shape = tuple(1 if dim < 0 else dim for dim in spec.shape)
        if math.prod(shape) != 1:
            raise InvalidRequest(f"a raw body is one element; {spec.name!r} takes {list(shape)}")
        array = array.reshape(shape)
    else:
        shape = _raw_shape(spec, len(body))
        array = _from_binary(spec.name, spec.datatype, shape, memoryview(body))
    tensor = Tensor(spec.name, spec.datatype, array)
    return InferRequest(inputs=(tensor,), binary_by_default=True)


def _raw_shape(spec: TensorSpec, body_bytes: int) -> tuple[int, ...]:
    if sum(dim < 0 for dim in spec.shape) > 1:
        raise InvalidRequest(
            f"a raw tensor body cannot tell the shape of {spec.name!r}: {list(spec.shape)} has "
            "more than one dynamic dimension"
        )
    fixed = math.prod(dim for dim in spec.shape if dim >= 0) * NUMPY_TYPES[spec.datatype].itemsize
    free = body_bytes // fixed if fixed else 0
    return tuple(free if dim < 0 else dim for dim in spec.shape)


def encode_response(request: InferRequest, response: InferResponse) -> tuple[bytes, int | None]:
    """The body of an answer, and its JSON length where binary tensors follow the JSON.

    NaN and infinities have no JSON form and become null there; binary keeps them. Raises
    InvalidRequest where an output cannot travel as JSON (FP16, BYTES that are not UTF-8) and the
    client did not ask for binary.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for tensor in response.outputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype.value,
            "shape": list(tensor.array.shape),
        }
        if request.wants_binary(tensor.name):
            raw = to_binary(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            parts.append(raw)
        else:
            entry["data"] = _to_json(tensor)
        outputs.append(entry)
    head: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "outputs": outputs,
    }
    if response.id:
        head["id"] = response.id
    text = msgspec.json.encode(head)
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)


def to_binary(tensor: Tensor) -> bytes:
    """The tensor as it travels in the binary extension."""
    if tensor.datatype is Datatype.BYTES:
        return b"".join(
            _LENGTH_PREFIX.pack(len(element)) + element for element in tensor.array.ravel()
        )
    dtype = NUMPY_TYPES[tensor.datatype]
    return np.ascontiguousarray(tensor.array, dtype=dtype).tobytes()


def _to_json(tensor: Tensor) -> list[Any]:
    if tensor.datatype is Datatype.FP16:
        raise InvalidRequest(
            f"output {tensor.name!r} is FP16, which has no JSON form; ask for binary_data"
        )
    flat: list[Any] = tensor.array.ravel().tolist()
    if tensor.datatype is not Datatype.BYTES:
        return flat
    try:
        return [element.decode() for element in flat]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"output {tensor.name!r} is not UTF-8, so it has no JSON form; ask for binary_data"
        ) from error
