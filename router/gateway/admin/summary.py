"""What a gateway tells the others of its traffic and its bill, as it travels: counts, which add up.

A line of JSON each: who it is, what it counts of tenants, its models with requests or cost, the
end. Another gateway's word is checked like a client's. Pure.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from router.domain.decision import Backend
from router.telemetry.metrics import Seen
from router.turns import Steps

MAX_BYTES = 256 * 1024
"""Of a word as it travels; models that have no room in it are left out, and counted."""
_MAX_PLAIN_BYTES = 4 << 20
_AT_A_TIME = 64 * 1024
_MAX_LINES = 10_000

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f]{0,256}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
_Counts = Annotated[dict[_Name, _Count], msgspec.Meta(max_length=200)]
_Amounts = Annotated[dict[_Name, _Amount], msgspec.Meta(max_length=20)]
_Table = Annotated[dict[_Name, _Amounts], msgspec.Meta(max_length=20_000)]
T = TypeVar("T")


class WordError(Exception):
    """That is not what a gateway tells of itself."""


class Teller(msgspec.Struct):
    """Which gateway it is, when it started (seconds since 1970), and what it has at hand."""

    version: _Name
    started_at: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    config_hash: _Name
    in_flight: _Count
    connections: _Count


class FunctionCounts(msgspec.Struct):
    """A function's calls, as its status has them."""

    in_flight: _Count
    max_concurrency: _Count
    queued: _Count
    calls: _Count
    cold_calls: _Count
    environments_idle: _Count


class RecentCounts(msgspec.Struct):
    """The last minute: why requests went where they went, how well, and how long by bucket."""

    reasons: _Counts = {}
    objective: _Counts = {}
    took: Annotated[dict[int, _Count], msgspec.Meta(max_length=200)] = {}

    @property
    def seen(self) -> Counter[Seen]:
        """As they are counted here."""
        parts = (("reasons", self.reasons), ("objective", self.objective), ("took", self.took))
        return Counter({(name, what): n for name, part in parts for what, n in part.items()})


class EndpointCounts(msgspec.Struct, array_like=True):
    """Of requests to one endpoint."""

    in_flight: _Count
    good_answers: _Count
    errors: _Count
    set_aside: _Count


class ModelWord(msgspec.Struct):
    """What is counted of a model."""

    name: _Name
    queued: _Count
    captive_requests: _Count
    decisions: _Counts
    cost_usd: _Amounts
    alternatives_usd: _Amounts
    endpoints: Annotated[dict[_Name, EndpointCounts], msgspec.Meta(max_length=1000)]
    serverless: FunctionCounts | None
    recent: RecentCounts


class _Tenants(msgspec.Struct):
    requests: _Table = {}
    cost_usd: _Table = {}
    tokens: _Table = {}
    gb_s: _Table = {}
    refusals: _Table = {}


class _End(msgspec.Struct):
    left_out: _Count


class Word(msgspec.Struct):
    """All that a gateway tells; `left_out` are models for which there was no room."""

    teller: Teller
    tenants: dict[str, dict[str, dict[str, float]]]
    models: dict[str, ModelWord]
    left_out: int


_TELLER = msgspec.json.Decoder(Teller)
_TENANTS = msgspec.json.Decoder(_Tenants)
_MODEL = msgspec.json.Decoder(ModelWord)
_END = msgspec.json.Decoder(_End)


def model_word(shown: Mapping[str, Any], recent: Mapping[Seen, int]) -> dict[str, Any]:
    """What is told of a model whose status is `shown`."""
    parts: dict[str, dict[Any, int]] = {"reasons": {}, "objective": {}, "took": {}}
    for (part, what), count in recent.items():
        parts[part][what] = count
    function = shown["serverless"]
    return {
        **{name: shown[name] for name in ("name", *_ADDED, *_COUNTS)},
        "endpoints": {
            each["id"]: [each[name] for name in EndpointCounts.__struct_fields__]
            for each in shown["endpoints"]
            if each["good_answers"] or each["errors"] or each["in_flight"]
        },
        "serverless": function
        and {name: function[name] for name in FunctionCounts.__struct_fields__},
        "recent": parts,
    }


def encode(
    teller: Teller, tenants: Mapping[str, Any], models: Iterable[Mapping[str, Any]]
) -> Steps[bytes]:
    """A gateway's word, as it travels."""
    deflater = zlib.compressobj(1)
    text = _deflated(deflater, teller) + _deflated(deflater, tenants)
    room = _MAX_PLAIN_BYTES // 2
    left_out = 0
    for model in models:
        line = msgspec.json.encode(model) + b"\n"
        # Some of what was given to the compressor is not in the text yet.
        if len(line) > room or len(text) + _AT_A_TIME > MAX_BYTES:
            left_out += 1
        else:
            room -= len(line)
            text += deflater.compress(line)
        yield
    return text + _deflated(deflater, _End(left_out)) + deflater.flush()


def _deflated(deflater: Any, line: object) -> bytes:  # noqa: ANN401  zlib names no type
    return bytes(deflater.compress(msgspec.json.encode(line) + b"\n"))


def heard(text: bytes) -> Steps[Word]:
    """What another gateway tells. Raises WordError."""
    try:
        lines = (yield from _inflated(text)).split(b"\n")
        if len(lines) < 4 or len(lines) > _MAX_LINES:
            raise WordError(f"{len(lines)} lines")
        models = {}
        for line in lines[2:-2]:
            model = _MODEL.decode(line)
            models[model.name] = model
            yield
        tenants = msgspec.to_builtins(_TENANTS.decode(lines[1]))
        end = _END.decode(lines[-2])
        return Word(_TELLER.decode(lines[0]), tenants, models, end.left_out)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WordError(str(error)) from error


def _inflated(text: bytes) -> Steps[bytes]:
    inflater, plain = zlib.decompressobj(), bytearray()
    while text and not inflater.eof:
        plain += inflater.decompress(text, _AT_A_TIME)
        text = inflater.unconsumed_tail
        if len(plain) > _MAX_PLAIN_BYTES:
            raise WordError("it is too large when decompressed")
        yield
    if not inflater.eof:
        raise WordError("it has no end")
    return bytes(plain)


_ADDED = ("queued", "captive_requests")
_COUNTS = ("decisions", "cost_usd", "alternatives_usd")


def add(shown: dict[str, Any], others: Iterable[ModelWord]) -> None:
    """Add what other gateways tell of a model to its status here, `recent` excepted."""
    endpoints = {each["id"]: each for each in shown["endpoints"]}
    for other in others:
        for name in _ADDED:
            shown[name] += getattr(other, name)
        for name in _COUNTS:
            shown[name] = _summed(shown[name], getattr(other, name))
        if shown["serverless"] is not None and other.serverless is not None:
            _add_fields(shown["serverless"], other.serverless)
        for known in other.endpoints.keys() & endpoints.keys():
            _add_fields(endpoints[known], other.endpoints[known])
    shown.update(by_place_and_reason(shown["decisions"]))


def by_place_and_reason(pairs: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The decisions by backend alone and by reason alone, of counts by `backend/reason`."""
    split: dict[str, int] = dict.fromkeys(Backend, 0)
    reasons: dict[str, int] = {}
    for pair, count in pairs.items():
        backend, _, reason = pair.partition("/")
        if backend in split:
            split[backend] += count
            reasons[reason] = reasons.get(reason, 0) + count
    return {"split": split, "reasons": reasons}


def summed_tenants(every: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The tables of tenants of several gateways as one."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for one in every:
        for name, rows in one.items():
            table = tables.setdefault(name, {})
            for who, counts in rows.items():
                table[who] = _summed(table.get(who, {}), counts)
    return tables


def _add_fields(shown: dict[str, Any], counts: msgspec.Struct) -> None:
    for name in counts.__struct_fields__:
        shown[name] += getattr(counts, name)


def _summed(one: Mapping[str, T], other: Mapping[str, T]) -> dict[str, Any]:
    total: dict[str, Any] = dict(one)
    for name, value in other.items():
        total[name] = total.get(name, 0) + value
    return total
