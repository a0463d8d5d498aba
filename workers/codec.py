"""Bytes <-> protocol values: JSON bodies and the binary tensor extension of OIP v2.

Decides whether a body says what it claims (types, lengths, shapes) before any tensor is built
from it: no declared number is ever used to allocate memory. Never checks a tensor against a
model (`engine` does) nor converts elements (`tensors` does); content codings are `compression`'s.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

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
from workers.tensors import (
    array_to_binary,
    array_to_json,
    binary_to_array,
    bytes_array,
    json_to_array,
)

HEADER_LENGTH: Final = "inference-header-content-length"
JSON_TYPE: Final = "application/json"
BINARY_TYPE: Final = "application/octet-stream"

_MAX_LENGTH_DIGITS = 12
_DATATYPES: Final = {datatype.value: datatype for datatype in Datatype}  # faster than the enum
_NO_BYTES: Final = memoryview(b"")
_UNSUPPORTED_PARAMETER = "shared_memory_region"


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
    if header_length is None:
        head, binary = _parse_head(body), _NO_BYTES
    else:
        view = memoryview(body)
        head, binary = _parse_head(view[:header_length]), view[header_length:]
    _refuse_unsupported(head.inputs)
    _refuse_unsupported(head.outputs)
    inputs = _build_inputs(head.inputs, binary)
    outputs = tuple(_requested_outputs(head.outputs)) if head.outputs else ()
    if not head.parameters:
        return InferRequest(inputs, outputs, head.id)
    return InferRequest(
        inputs=inputs,
        outputs=outputs,
        id=head.id,
        binary_by_default=_flag(head.parameters, "binary_data_output", "parameters") or False,
        timeout_s=_timeout_s(head.parameters),
    )


def _parse_head(text: bytes | bytearray | memoryview) -> _Head:
    try:
        return _head_decoder.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request does not fit the protocol: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the request's JSON is nested too deeply") from error


def _refuse_unsupported(entries: Sequence[_Input] | Sequence[_Output]) -> None:
    for entry in entries:
        if entry.parameters and _UNSUPPORTED_PARAMETER in entry.parameters:
            name = _UNSUPPORTED_PARAMETER
            raise UnsupportedFeature(f"tensor {entry.name!r}: {name} is not supported")


def _requested_outputs(outputs: Sequence[_Output]) -> list[RequestedOutput]:
    names = [output.name for output in outputs]
    if len(set(names)) != len(names):
        raise InvalidRequest(f"outputs are named twice: {_repeated(names)}")
    return [
        RequestedOutput(
            o.name,
            _flag(o.parameters, "binary_data", f"output {o.name!r}"),
            _classes(o.parameters, o.name),
        )
        for o in outputs
    ]


def _classes(parameters: dict[str, Any], output: str) -> int:
    value = parameters.get("classification", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest(f"output {output!r}: classification must be a number of classes")
    return value


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
    if len(inputs) > 1:
        names = [entry.name for entry in inputs]
        if len(set(names)) != len(names):
            raise InvalidRequest(f"inputs are given twice: {_repeated(names)}")
    tensors = []
    offset = 0
    for entry in inputs:
        datatype, shape = _declared(entry)
        size = _binary_size(entry, len(binary) - offset) if entry.parameters else None
        if size is None:
            array = _from_json(entry, datatype, shape)
        else:
            array = binary_to_array(entry.name, datatype, shape, binary[offset : offset + size])
            offset += size
        tensors.append(Tensor(entry.name, datatype, array))
    if offset != len(binary):
        raise InvalidRequest(
            f"the body has {len(binary) - offset} bytes after the last tensor; the sum of "
            "binary_data_size must be what follows the JSON"
        )
    return tuple(tensors)


def _declared(entry: _Input) -> tuple[Datatype, tuple[int, ...]]:
    datatype = _DATATYPES.get(entry.datatype)
    if datatype is None:
        raise InvalidRequest(
            f"input {entry.name!r}: datatype {entry.datatype[:40]!r} is not supported; "
            f"use one of {', '.join(Datatype)}"
        )
    if len(entry.shape) > MAX_RANK:
        raise InvalidRequest(f"input {entry.name!r}: more than {MAX_RANK} dimensions")
    for dimension in entry.shape:
        if not 0 <= dimension <= MAX_DIMENSION:
            raise InvalidRequest(
                f"input {entry.name!r}: shape {entry.shape} has an impossible dimension {dimension}"
            )
    return datatype, tuple(entry.shape)


def _from_json(entry: _Input, datatype: Datatype, shape: tuple[int, ...]) -> Array:
    if not entry.data:
        raise InvalidRequest(
            f"input {entry.name!r} has neither data nor parameters.binary_data_size"
        )
    return json_to_array(entry.name, datatype, shape, bytes(entry.data))


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


def _raw_request(body: bytes | bytearray, specs: Sequence[TensorSpec]) -> InferRequest:
    if len(specs) != 1:
        raise InvalidRequest(
            f"a raw tensor body fits only models with one input; this one has {len(specs)}"
        )
    spec = specs[0]
    if spec.datatype is Datatype.BYTES:
        array = bytes_array([bytes(body)])
        shape = tuple(1 if dim < 0 else dim for dim in spec.shape)
        if math.prod(shape) != 1:
            raise InvalidRequest(f"a raw body is one element; {spec.name!r} takes {list(shape)}")
        array = array.reshape(shape)
    else:
        shape = _raw_shape(spec, len(body))
        array = binary_to_array(spec.name, spec.datatype, shape, memoryview(body))
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
            "datatype": tensor.datatype,
            "shape": tensor.array.shape,
        }
        if request.wants_binary(tensor.name):
            raw = array_to_binary(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            parts.append(raw)
        else:
            entry["data"] = array_to_json(tensor)
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
