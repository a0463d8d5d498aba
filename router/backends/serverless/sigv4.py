"""AWS Signature Version 4 over headers. Pure: credentials, time and request in, lines out.

Signs exactly the headers it is given, with Host, date and session token; never unsigned payloads.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from router.upstream.head import encode_lines

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """An access key; `token` is set for temporary ones. Its text form shows no secret."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a signature is valid."""

    region: str
    service: str = "lambda"


@dataclass(frozen=True, slots=True)
class Signable:
    """What requests share that differ in their body alone.

    `target` is the path and query as they go on the wire.
    """

    method: str
    host: str
    target: str
    headers: Sequence[tuple[str, str]]


class _Second(NamedTuple):
    """What all signatures of one second share; `lines` lack the signature itself."""

    at: int
    canonical: bytes
    text: bytes
    key: bytes
    lines: bytes


class Signer:
    """Signs requests that are alike, by one pair of credentials.

    All but the body is worked out once a second: the date is signed, too.
    """

    def __init__(self, request: Signable, credentials: AwsCredentials, scope: Scope) -> None:
        self.credentials = credentials
        self._request = request
        self._scope = scope
        self._second = self._of(0)

    def lines(self, body: bytes, now: float) -> bytes:
        """The lines of a head that authenticate it; `now` is seconds since 1970."""
        second = self._second
        if second.at != int(now):
            second = self._second = self._of(int(now))
        canonical = second.canonical + sha256(body).hexdigest().encode()
        text = second.text + sha256(canonical).hexdigest().encode()
        signature = hmac.digest(second.key, text, "sha256").hex()
        return b"%b%b\r\n" % (second.lines, signature.encode())

    def _of(self, at: int) -> _Second:
        credentials, scope = self.credentials, self._scope
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
        added = [("x-amz-date", stamp)]
        if credentials.token:
            added.append(("x-amz-security-token", credentials.token))
        names, canonical = _canonical(self._request, [*self._request.headers, *added])
        place = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
        value = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{place}, "
            f"SignedHeaders={names}, Signature="
        )
        lines = encode_lines(
            [*(f"{name}: {text}" for name, text in added), f"authorization: {value}"]
        )
        return _Second(
            at,
            canonical.encode(),
            f"{_ALGORITHM}\n{stamp}\n{place}\n".encode(),
            _signing_key(credentials.secret_key, stamp[:8], scope),
            lines.removesuffix(b"\r\n"),
        )


def _canonical(request: Signable, headers: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The signed headers' names, and the canonical request but for the hash of its body."""
    path, _, query = request.target.partition("?")
    values: dict[str, list[str]] = {"host": [request.host]}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(" ".join(value.split()))
    names = ";".join(sorted(values))
    lines = [
        request.method,
        quote(_without_dots(path), safe="/~"),  # the path is encoded already: AWS encodes twice
        "&".join("=".join(pair) for pair in sorted(_pairs(query))),
        *(f"{name}:{','.join(values[name])}" for name in sorted(values)),
        "",
        names,
        "",
    ]
    return names, "\n".join(lines)


def _pairs(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (p.partition("=") for p in query.split("&") if p)]


def _without_dots(path: str) -> str:
    """The path without empty, `.` and `..` segments, as AWS normalises it."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in {"", "."}:
            kept.append(segment)
    last = "/" if path.endswith("/") and kept else ""
    return f"/{'/'.join(kept)}{last}"


@lru_cache(maxsize=16)
def _signing_key(secret_key: str, day: str, scope: Scope) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return key
