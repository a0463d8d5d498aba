"""KServe's V1 protocol: `{"instances": [...]}` in, `{"predictions": [...]}` out.

Decides how rows become tensors and tensors rows. Elements are converted by `tensors`, and checked
against the model by `engine`, as those of the V2 protocol.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from workers.protocol import (
    Array,
    Datatype,
    InferRequest,
    InferResponse,
    InvalidRequest,
    PayloadTooLarge,
    Tensor,
    TensorSpec,
)
from workers.tensors import rows_to_array

# Nested lists take many times as much memory as their text.
_MAX_BYTES: Final = 8 * 1024 * 1024


class _Body(msgspec.Struct):
    instances: msgspec.Raw


_body = msgspec.json.Decoder(_Body)
_named_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def decode_predict(body: bytes | bytearray, specs: Sequence[TensorSpec]) -> InferRequest:
    """The request of a V1 body: a row is an instance, or an object with a value for each input.

    Raises InvalidRequest or PayloadTooLarge.
    """
    if len(body) > _MAX_BYTES:
        raise PayloadTooLarge(
            f"a body of the V1 protocol has at most {_MAX_BYTES} bytes; the V2 protocol takes more"
        )
    try:
        text = bytes(_body.decode(body).instances)
        columns = _columns(text, specs)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request does not fit the V1 protocol: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the request's JSON is nested too deeply") from error
    types = {spec.name: spec.datatype for spec in specs}
    unknown = [name for name in columns if name not in types]
    if unknown:
        raise InvalidRequest(f"unexpected input {unknown[0][:128]!r}")
    return InferRequest(
        tuple(
            Tensor(name, types[name], rows_to_array(name, types[name], column))
            for name, column in columns.items()
        )
    )


def _columns(text: bytes, specs: Sequence[TensorSpec]) -> dict[str, bytes]:
    """The JSON list of each input's rows."""
    first = text[1:].lstrip()[:1]
    if not text.startswith(b"[") or first == b"]":
        raise InvalidRequest("instances must be a list with at least one")
    if first != b"{":
        if len(specs) != 1:
            raise InvalidRequest(
                f"the model has {len(specs)} inputs: each instance must be an object with all"
            )
        return {specs[0].name: text}
    named = _named_rows.decode(text)
    names = named[0].keys()
    if any(row.keys() != names for row in named):
        raise InvalidRequest("the instances do not all have the same inputs")
    return {name: b"[" + b",".join(bytes(row[name]) for row in named) + b"]" for name in names}


def encode_predict(response: InferResponse, rows: int) -> bytes:
    """The body of the answer: a row is a value, or an object where there are several outputs.

    NaN and infinities become null. Raises InvalidRequest where an output has no row for each
    instance, or is text that is not UTF-8.
    """
    columns = {tensor.name: _listed(tensor, rows) for tensor in response.outputs}
    if len(columns) == 1:
        predictions: list[Any] = next(iter(columns.values()))
    else:
        predictions = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return msgspec.json.encode({"predictions": predictions})


def _listed(tensor: Tensor, rows: int) -> list[Any]:
    array = tensor.array
    if tensor.datatype is Datatype.BF16:
        raise InvalidRequest(f"output {tensor.name!r} is BF16, which has no JSON form")
    if not array.ndim or array.shape[0] != rows:
        raise InvalidRequest(
            f"output {tensor.name!r} has no row for each instance; ask by the V2 protocol"
        )
    listed: list[Any] = (_texts(tensor.name, array) if array.dtype == object else array).tolist()
    return listed


def _texts(name: str, array: Array) -> Array:
    texts = array.copy()
    try:
        texts.ravel()[:] = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"output {name!r} is not UTF-8, so it has no JSON form") from error
    return texts
