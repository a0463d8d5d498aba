"""An inference request or answer as named arrays, whatever way its numbers travelled. Pure.

Reads what a client or a model server sent; raises nothing but UnreadableAnswerError, whatever that
was.
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    """The body is no answer of that protocol, or has no numbers to compare."""


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


class _Answer(msgspec.Struct):
    outputs: list[_Output]
    id: str | None = None
    model_version: str | None = None


class _Request(msgspec.Struct):
    inputs: list[_Output]


class _Predictions(msgspec.Struct):
    predictions: Any


class _Instances(msgspec.Struct):
    instances: list[Any]


class Read(NamedTuple):
    """An answer's outputs by name, and what it says of itself; empty where it does not."""

    outputs: dict[str, Tensor]
    id: str = ""
    version: str = ""


def outputs_of(form: AnswerForm, answer: Answer) -> dict[str, Tensor]:
    """The outputs by name. Raises UnreadableAnswerError."""
    return answer_of(form, answer).outputs


def answer_of(form: AnswerForm, answer: Answer) -> Read:
    """All that an answer says. Raises UnreadableAnswerError."""
    with _as_unreadable():
        body = plain(form, answer.headers, answer.body)
        if form is AnswerForm.PREDICTIONS:
            found = msgspec.json.decode(body, type=_Predictions).predictions
            return Read({"predictions": _numbers(found)})
        split = _split(body, answer.headers)
        document = msgspec.json.decode(body[:split], type=_Answer)
        outputs = _named(document.outputs, memoryview(body)[split:])
        return Read(outputs, document.id or "", document.model_version or "")


def inputs_of(form: AnswerForm, headers: Mapping[str, str], body: bytes) -> dict[str, Tensor]:
    """The inputs of a request by name. Raises UnreadableAnswerError."""
    with _as_unreadable():
        body = plain(form, headers, body)
        if form is AnswerForm.PREDICTIONS:
            return _instances(msgspec.json.decode(body, type=_Instances).instances)
        split = _split(body, headers)
        document = msgspec.json.decode(body[:split], type=_Request)
        return _named(document.inputs, memoryview(body)[split:])


@contextmanager
def _as_unreadable() -> Iterator[None]:
    try:
        yield
    except UnreadableAnswerError:
        raise
    except (
        msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, zlib.error,
    ) as error:  # fmt: skip
        raise UnreadableAnswerError(str(error)) from error


def plain(form: AnswerForm, headers: Mapping[str, str], body: bytes) -> bytes:
    """The body of a message that holds tensors, decompressed. Raises UnreadableAnswerError."""
    if form is AnswerForm.TEXT:
        raise UnreadableAnswerError("answers of this protocol hold text")
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in {"", "identity"}:
        return body
    if coding not in {"gzip", "deflate"}:
        raise UnreadableAnswerError(f"the coding {coding[:40]!r} is not known")
    wbits = zlib.MAX_WBITS | 32 if coding == "gzip" else zlib.MAX_WBITS
    inflater = zlib.decompressobj(wbits=wbits)
    inflated = inflater.decompress(body, MAX_PLAIN_BYTES)
    if inflater.unconsumed_tail:
        raise UnreadableAnswerError("it is too large when decompressed")
    return inflated


def _split(body: bytes, headers: Mapping[str, str]) -> int:
    header_length = headers.get(_HEADER_LENGTH)
    return len(body) if header_length is None else int(header_length)


def _named(outputs: list[_Output], raw: memoryview) -> dict[str, Tensor]:
    found = {}
    for output in outputs:
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


def _instances(instances: list[Any]) -> dict[str, Tensor]:
    """Instances are rows of one input, or each names its inputs."""
    if not all(isinstance(each, dict) for each in instances):
        return {"instances": _numbers(instances)}
    names = {name for each in instances for name in each}
    return {str(name): _column([each.get(name) for each in instances]) for name in names}


def _column(values: list[Any]) -> Tensor:
    if all(isinstance(value, str) for value in values):
        return Tensor("BYTES", (len(values),), [value.encode() for value in values])
    return _numbers(values)


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


def _numbers(data: Any) -> Tensor:  # noqa: ANN401 - decoded JSON
    values = np.asarray(data, np.float64)
    return Tensor("FP64", values.shape, values.reshape(-1))
