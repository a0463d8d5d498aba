"""The record a gateway keeps in the shared state: its fields, how they are written and validated.

Decides what of a peer's record, and of its changes, may be believed. What is written in one step is
believed whole or not at all. Never talks to Redis, and never raises anything but RecordError.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Generic, NamedTuple, TypeVar

import msgspec

from router.signals.snapshot import CanaryWord, ModelTotals, SharedEndpoint

FIELDS = ("totals", "endpoints", "in_flight", "taken", "canaries")
"""The fields of a record; those that another release may have beside them are not read."""
KEPT_CHANGES = 256
"""So many of its last changes a record has beside its fields."""
MAX_FIELD_BYTES = 1 << 20
MAX_ID_BYTES = 128
MAX_COUNT = 2**53
MAX_AMOUNT = 1e15
MAX_CONCURRENCY = 100_000
MAX_IN_FLIGHT = 1_000_000

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
# An endpoint's id ends up in a response header: visible ASCII only.
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,128}\Z")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
_Concurrency = Annotated[int, msgspec.Meta(ge=1, le=MAX_CONCURRENCY)]
_InFlight = Annotated[int, msgspec.Meta(ge=0, le=MAX_IN_FLIGHT)]
# A base address and nothing else: no credentials, query or blanks that could change a request.
_Url = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\Ahttps?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?\Z"
        # Or the socket of a gateway's worker, and of nobody else: a peer's word must not have us
        # speak to the container engine.
        r"|\Aunix:(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+/hybrid-router-[a-z0-9_]+/[0-9a-f]{16}\.sock\Z",
        max_length=512,
    ),
]


_GATEWAY_ID = re.compile(rb"\A[A-Za-z0-9._:@-]{1,%d}\Z" % MAX_ID_BYTES)


class RecordError(ValueError):
    """A record cannot be believed; the message says which field and why, without its content."""


class Publication(NamedTuple):
    """What a gateway tells the others about itself: what is new since it did so last.

    `endpoints` are its own ready replicas by model; `in_flight` counts its requests by endpoint,
    on its own replicas and on the others'. `taken` counts what it has let through by API key.
    `canaries` is by rule. None says that there is nothing any more.
    """

    totals: Mapping[str, ModelTotals | None]
    endpoints: Mapping[str, Sequence[SharedEndpoint] | None]
    in_flight: Mapping[str, int | None]
    taken: Mapping[str, int | None] = MappingProxyType({})
    canaries: Mapping[str, CanaryWord | None] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """What another gateway says about itself, validated."""

    totals: Mapping[str, ModelTotals]
    endpoints: Mapping[str, tuple[SharedEndpoint, ...]]
    in_flight: Mapping[str, int]
    taken: Mapping[str, int]
    canaries: Mapping[str, CanaryWord]


class _Totals(msgspec.Struct, frozen=True, gc=False):
    arrivals: _Count
    work_s: _Amount
    serverless_usd: _Amount
    captive: _Count
    captive_work_s: _Amount


class _Endpoint(msgspec.Struct, frozen=True, gc=False):
    id: _Id
    url: _Url
    concurrency: _Concurrency


class _Canary(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    canary: _Digest
    term: _Count
    is_out: bool
    step: _Count = 0


class _TotalsRow(_Totals, frozen=True, gc=False, array_like=True):
    """Totals as an array without names: changes are written and read all the time."""


class _Change(msgspec.Struct, frozen=True, gc=False):
    totals: dict[_Name, _TotalsRow | None] = {}
    endpoints: dict[_Name, list[_Endpoint] | None] = {}
    in_flight: dict[_Id, _InFlight | None] = {}
    taken: dict[_Name, _Count | None] = {}
    canaries: dict[_Name, _Canary | None] = {}


_AnyTotals = TypeVar("_AnyTotals", _Totals, _TotalsRow)


class _Told(msgspec.Struct, Generic[_AnyTotals], frozen=True, omit_defaults=True):
    totals: Mapping[str, _AnyTotals | None] = {}
    endpoints: Mapping[str, list[_Endpoint] | None] = {}
    in_flight: Mapping[str, int | None] = {}
    taken: Mapping[str, int | None] = {}
    canaries: Mapping[str, _Canary | None] = {}


_T = TypeVar("_T")
_V = TypeVar("_V")
_CHANGE = msgspec.json.Decoder(_Change)
_TOTALS = msgspec.json.Decoder(dict[_Name, _Totals])
_ENDPOINTS = msgspec.json.Decoder(dict[_Name, list[_Endpoint]])
_CANARIES = msgspec.json.Decoder(dict[_Name, _Canary])
_IN_FLIGHT = msgspec.json.Decoder(dict[_Id, _InFlight])
_TAKEN = msgspec.json.Decoder(dict[_Name, _Count])


def gateway_id(member: bytes) -> str:
    """The gateway id in a membership entry. Raises RecordError when it is not one."""
    if not _GATEWAY_ID.match(member):
        raise RecordError(f"gateway id: {len(member)} bytes that are not an id")
    return member.decode("ascii")


def encode(said: Publication) -> dict[str, bytes]:
    """The hash fields of a gateway's own record; one JSON object each, readable with redis-cli.

    `said` is all that it has to say.
    """
    told = _told(said, _Totals)
    return {name: msgspec.json.encode(getattr(told, name)) for name in FIELDS}


def encode_change(said: Publication) -> bytes:
    """What has changed in a gateway's own record, as one JSON object; null is what is gone."""
    return msgspec.json.encode(_told(said, _TotalsRow))


def _told(said: Publication, totals: Callable[..., _AnyTotals]) -> "_Told[_AnyTotals]":
    return _Told(
        {model: value and totals(*value) for model, value in said.totals.items()},
        {
            model: [_Endpoint(each.id, each.url, each.concurrency) for each in found]
            if found
            else None
            for model, found in said.endpoints.items()
        },
        dict(said.in_flight),
        dict(said.taken),
        {rule: word and _Canary(*word) for rule, word in said.canaries.items()},
    )


def decode(owner: str, fields: Mapping[bytes, bytes]) -> PeerRecord:
    """The record of the gateway `owner`. Raises RecordError when anything in it is wrong.

    Unknown fields are ignored, so that gateways of two releases can share one Redis.
    """
    totals = _decode_field("totals", fields, _TOTALS)
    endpoints = _decode_field("endpoints", fields, _ENDPOINTS)
    in_flight = _decode_field("in_flight", fields, _IN_FLIGHT)
    # An earlier release does not say these.
    taken = _decode_field("taken", {b"taken": b"{}", **fields}, _TAKEN)
    canaries = _decode_field("canaries", {b"canaries": b"{}", **fields}, _CANARIES)
    return PeerRecord(
        totals={model: _totals(found) for model, found in totals.items()},
        endpoints={model: _endpoints(owner, found) for model, found in endpoints.items()},
        in_flight=in_flight,
        taken=taken,
        canaries={rule: _word(found) for rule, found in canaries.items()},
    )


def changed(owner: str, record: PeerRecord, raw: bytes) -> PeerRecord:
    """The record after one of its owner's changes. Raises RecordError when that is wrong."""
    change = _decode_field("change", {b"change": raw}, _CHANGE)
    return PeerRecord(
        totals=_updated(record.totals, change.totals, _totals),
        endpoints=_updated(record.endpoints, change.endpoints, partial(_endpoints, owner)),
        in_flight=_updated(record.in_flight, change.in_flight, int),
        taken=_updated(record.taken, change.taken, int),
        canaries=_updated(record.canaries, change.canaries, _word),
    )


def _updated(
    known: Mapping[str, _V], change: Mapping[str, _T | None], made: Callable[[_T], _V]
) -> Mapping[str, _V]:
    if not change:
        return known
    updated = dict(known)
    for name, value in change.items():
        if value is None:
            updated.pop(name, None)
        else:
            updated[name] = made(value)
    return updated


def _totals(found: _Totals) -> ModelTotals:
    return ModelTotals(
        found.arrivals,
        found.work_s,
        found.serverless_usd,
        found.captive,
        found.captive_work_s,
    )


def _endpoints(owner: str, found: Iterable[_Endpoint]) -> tuple[SharedEndpoint, ...]:
    return tuple(SharedEndpoint(each.id, each.url, each.concurrency, owner) for each in found)


def _word(found: _Canary) -> CanaryWord:
    return CanaryWord(found.canary, found.term, found.is_out, found.step)


def _decode_field(
    name: str, fields: Mapping[bytes, bytes], decoder: msgspec.json.Decoder[_T]
) -> _T:
    raw = fields.get(name.encode())
    if raw is None:
        raise RecordError(f"{name}: missing")
    if len(raw) > MAX_FIELD_BYTES:
        raise RecordError(f"{name}: {len(raw)} bytes, at most {MAX_FIELD_BYTES} are accepted")
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{name}: {error}") from error
