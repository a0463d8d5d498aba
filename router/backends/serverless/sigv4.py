"""AWS Signature Version 4 over headers. Pure: credentials, time and request in, headers out.

Signs exactly the headers it is given, with Host, date and session token; never unsigned payloads.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote

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
    """A request about to be sent: `target` is the path and query as they go on the wire."""

    method: str
    host: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes


def sign(
    request: Signable, credentials: AwsCredentials, scope: Scope, now: float
) -> list[tuple[str, str]]:
    """The request's headers with those that authenticate it; `now` is seconds since 1970."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = [*request.headers, ("x-amz-date", stamp)]
    if credentials.token:
        headers.append(("x-amz-security-token", credentials.token))
    names, canonical = _canonical(request, headers)
    place = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = f"{_ALGORITHM}\n{stamp}\n{place}\n{sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_key, stamp[:8], scope)
    signature = hmac.new(key, text.encode(), sha256).hexdigest()
    value = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{place}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return [*headers, ("authorization", value)]


def _canonical(request: Signable, headers: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The signed headers' names, and the canonical request."""
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
        sha256(request.body).hexdigest(),
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
