"""A request's head -> what the router knows of it. Bodies stay opaque; nothing here waits.

Every client-given value is checked here: lengths, encodings, deadlines, hints, ids.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from multidict import CIMultiDictProxy

from router.domain.decision import Backend
from router.domain.errors import InvalidRequestError, LoopDetectedError, UnsupportedMediaError

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_FORWARDED = HOP_BY_HOP | {"host", "content-length", "expect"}
OURS = "x-router-"
"""How the names of headers begin that this gateway alone says or understands."""
_PSEUDONYM = "hybrid-router"
_OWN_VIA = f"1.1 {_PSEUDONYM}"
_MAX_OWN_HOPS = 2
_MAX_HOPS = 16
_KEYS = frozenset({"authorization", "x-api-key"})
MAX_ID_LENGTH = 128
_REQUEST_ID = re.compile(rf"[!-~]{{1,{MAX_ID_LENGTH}}}")
_MILLISECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?")
_MAX_DEADLINE_MS = 86_400_000.0
_CODINGS = {"", "identity", "gzip", "deflate"}
# Command-line and standard-library clients label any body a form unless told otherwise.
_UNLABELLED = {"", "application/x-www-form-urlencoded"}
_BINARY = "application/octet-stream"
_CHARSETS = {"utf-8", "utf8", "us-ascii", "ascii"}
_MEDIA = _UNLABELLED | {"application/json", _BINARY}


@dataclass(frozen=True, slots=True)
class Head:
    """The parts of a head that decide: `headers` is what goes upstream, in lower case."""

    headers: Mapping[str, str]
    request_id: str | None
    deadline_ms: float | None
    hint: Backend | None
    is_text: bool
    key: str | None


def read_head(
    headers: CIMultiDictProxy[str],
    *,
    keys_are_ours: bool,
    media: frozenset[str] = frozenset(),
    dropped: frozenset[str] = frozenset(),
) -> Head:
    """Check and sort a request's headers.

    `media` are types of bodies that the path takes beside the usual ones; `dropped` (lower case) do
    not go on. `keys_are_ours` keeps the caller's API key from travelling on. Raises
    InvalidRequestError, LoopDetectedError or UnsupportedMediaError.
    """
    listed = {
        name.strip().lower()
        for value in headers.getall("connection", ())
        for name in value.split(",")
    }
    not_forwarded = _NOT_FORWARDED | dropped | (_KEYS if keys_are_ours else frozenset())
    forwarded: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in not_forwarded or lower in listed or lower.startswith(OURS):
            continue
        before = forwarded.get(lower)
        forwarded[lower] = value if before is None else f"{before}, {value}"
    # Judged by what goes on: a header may have come in several lines, or be named by Connection.
    coding = forwarded.get("content-encoding", "").strip().lower()
    if coding not in _CODINGS:
        raise UnsupportedMediaError(
            f"content-encoding {coding[:40]!r} is not supported; use gzip, deflate or none"
        )
    is_special = _label(forwarded, media)
    forwarded["via"] = _via(forwarded.get("via"))
    is_binary = "inference-header-content-length" in forwarded
    request_id = read_request_id(headers.get("x-request-id"))
    if request_id is None:
        forwarded.pop("x-request-id", None)  # it gets one that can be used
    return Head(
        headers=forwarded,
        request_id=request_id,
        deadline_ms=read_deadline_ms(headers.get("x-router-deadline-ms")),
        hint=_hint(headers.get("x-router-backend")),
        is_text=coding in {"", "identity"} and not (is_binary or is_special),
        key=_key(headers) if keys_are_ours else None,
    )


def _label(forwarded: dict[str, str], special: frozenset[str]) -> bool:
    """Check what the body is said to be; returns whether it is of one of the `special` types."""
    media, *options = (
        part.strip().lower() for part in forwarded.get("content-type", "").split(";")
    )
    _check_charset(options)
    if media in special:
        return True
    if media not in _MEDIA:
        raise UnsupportedMediaError(
            f"content-type {media[:80]!r} is not supported; send application/json, or"
            " application/octet-stream with an Inference-Header-Content-Length"
        )
    # Triton's async client calls its JSON binary: only this header tells that a body is.
    is_json = media == _BINARY and "inference-header-content-length" not in forwarded
    if media in _UNLABELLED or is_json:
        forwarded.pop("content-type", None)
    return False


def _via(given: str | None) -> str:
    """The way that the request has come (RFC 9110 section 7.6.3), with this gateway at its end.

    One gateway of this kind may stand behind another, but not behind two.
    """
    if given is None:
        return _OWN_VIA
    hops = [hop.split()[1:2] for hop in given.lower().split(",")]
    if hops.count([_PSEUDONYM]) >= _MAX_OWN_HOPS or len(hops) > _MAX_HOPS:
        raise LoopDetectedError(
            "the request has come through this gateway before, or through too many others: the"
            " address of a backend leads back here"
        )
    return f"{given}, {_OWN_VIA}"


def _check_charset(options: list[str]) -> None:
    """Refuse a charset that a server might honour, while JSON is UTF-8 to everybody else."""
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "charset" and value.strip(" \"'") not in _CHARSETS:
            raise UnsupportedMediaError(f"{option[:80]!r} is not supported; JSON is sent as UTF-8")


def read_request_id(given: str | None) -> str | None:
    """The id a client gave its request, None if there is none that can be used."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def read_deadline_ms(given: str | None) -> float | None:
    """The deadline a client asks for. Raises InvalidRequestError for what is none."""
    if given is None:
        return None
    if not _MILLISECONDS.fullmatch(given) or not 0 < float(given) <= _MAX_DEADLINE_MS:
        raise InvalidRequestError(
            f"x-router-deadline-ms = {given[:40]!r}, must be a number above 0, at most"
            f" {_MAX_DEADLINE_MS:.0f}"
        )
    return float(given)


def _hint(given: str | None) -> Backend | None:
    if given is None:
        return None
    try:
        return Backend(given)
    except ValueError:
        raise InvalidRequestError(
            f"x-router-backend = {given[:40]!r}, must be pool or serverless"
        ) from None


def _key(headers: CIMultiDictProxy[str]) -> str | None:
    match headers.get("authorization", "").split(maxsplit=1):
        case [scheme, token] if scheme.lower() == "bearer":
            return token.strip()
    return headers.get("x-api-key")
