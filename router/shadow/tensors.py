"""An inference answer as named arrays, whatever way its numbers travelled. Pure.

Reads what a model server sent; raises nothing but UnreadableAnswerError, whatever that was.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from struct import unpack_from
from typing import Any, NamedTuple

import msgspec
import numpy as np

from router.domain.request import AnswerForm

MAX_PLAIN_BYTES = 64 * 1024 * 1024
"""What a compressed answer may grow to."""
_HEADER_LENGTH = "inference-header-content-length"
_BINARY_SIZE = "binary_data_size"

_TYPES: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip

Array = np.ndarray[Any, np.dtype[Any]]


class UnreadableAnswerError(ValueError):
    """It is not an answer of that protocol, or has no numbers to compare."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Tensor(NamedTuple):
    """One output. `data` is flat: numbers, or for BYTES a list of byte strings."""

    datatype: str
    shape: tuple[int, ...]
    data: Array | list[bytes]


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Document(msgspec.Struct):
    outputs: list[_Output]


class _Predictions(msgspec.Struct):
    predictions: Any


def outputs_of(form: AnswerForm, answer: Answer) -> dict[str, Tensor]:
    """The outputs by name. Raises UnreadableAnswerError."""
    if form is AnswerForm.TEXT:
        raise UnreadableAnswerError("answers of this protocol hold text")
    try:
        body = _plain(answer)
        if form is AnswerForm.PREDICTIONS:
            return {"predictions": _predictions(body)}
        return _oip(body, answer.headers.get(_HEADER_LENGTH))
    except UnreadableAnswerError:
        raise
    except (
        msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, zlib.error,
    ) as error:  # fmt: skip
        raise UnreadableAnswerError(str(error)) from error


def _plain(answer: Answer) -> bytes:
    coding = answer.headers.get("content-encoding", "").strip().lower()
    if coding in {"", "identity"}:
        return answer.body
    if coding not in {"gzip", "deflate"}:
        raise UnreadableAnswerError(f"the coding {coding[:40]!r} is not known")
    wbits = zlib.MAX_WBITS | 32 if coding == "gzip" else zlib.MAX_WBITS
    inflater = zlib.decompressobj(wbits=wbits)
    plain = inflater.decompress(answer.body, MAX_PLAIN_BYTES)
    if inflater.unconsumed_tail:
        raise UnreadableAnswerError("it is too large when decompressed")
    return plain


def _oip(body: bytes, header_length: str | None) -> dict[str, Tensor]:
    split = len(body) if header_length is None else int(header_length)
    document = msgspec.json.decode(body[:split], type=_Document)
    raw, found = memoryview(body)[split:], {}
    for output in document.outputs:
        size = output.parameters.get(_BINARY_SIZE)
        if isinstance(size, int):
            if not 0 <= size <= len(raw):
                raise UnreadableAnswerError(f"output {output.name!r} is cut short")
            data = _from_binary(output.datatype, bytes(raw[:size]))
            raw = raw[size:]
        else:
            data = _from_json(output.datatype, output.data or [])
        found[output.name] = Tensor(output.datatype, tuple(output.shape), data)
    return found


def _from_binary(datatype: str, raw: bytes) -> Array | list[bytes]:
    if datatype == "BYTES":
        return _strings(raw)
    if datatype == "BF16":  # the upper half of an FP32
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, np.dtype(_type_of(datatype)).newbyteorder("<"))


def _from_json(datatype: str, data: list[Any]) -> Array | list[bytes]:
    if datatype == "BYTES":
        return [str(item).encode("utf-8", "surrogatepass") for item in _flat(data)]
    return np.asarray(data, np.float32 if datatype == "BF16" else _type_of(datatype)).reshape(-1)


def _type_of(datatype: str) -> Any:  # noqa: ANN401 - a numpy scalar type
    if datatype not in _TYPES:
        raise UnreadableAnswerError(f"the datatype {datatype[:40]!r} is not known")
    return _TYPES[datatype]


def _flat(data: list[Any]) -> list[Any]:
    """The items of lists in lists, in order."""
    items: list[Any] = []
    rest = list(reversed(data))
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest.extend(reversed(item))
        else:
            items.append(item)
    return items


def _strings(raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise UnreadableAnswerError("a length of BYTES is cut short")
        (length,) = unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            raise UnreadableAnswerError("an item of BYTES is cut short")
        found.append(raw[at - length : at])
    return found


def _predictions(body: bytes) -> Tensor:
    values = np.asarray(msgspec.json.decode(body, type=_Predictions).predictions, np.float64)
    return Tensor("FP64", values.shape, values.reshape(-1))
