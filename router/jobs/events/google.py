"""OIDC tokens of Pub/Sub push: who signed them, for whom, and when.

https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions. google-auth (an extra)
verifies signature, times and audience; Google's certificates are fetched here, because it would do
so with a client that blocks, for each token anew.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from router.domain.clock import Clock
from router.domain.errors import NoEndpointError, UnauthorizedError

CERTIFICATES_URL = "https://www.googleapis.com/oauth2/v1/certs"
_ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
_MAX_TOKEN_CHARS = 4096
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_MAX_BYTES = 64 * 1024
_KEPT_S = 3600.0
_NOT_AGAIN_S = 30.0
"""Certificates are not fetched more often, whatever key a token names."""
_SKEW_S = 60
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


def looks_like_token(text: str) -> bool:
    """Whether an Authorization's Bearer is a JWT and no API key."""
    return len(text) <= _MAX_TOKEN_CHARS and _JWT.fullmatch(text) is not None


class GoogleTokens:
    """Google's certificates, and the tokens that are verified with them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._certificates: Mapping[str, str] = {}
        self._fetched_at = -_KEPT_S
        self._fetching = asyncio.Lock()

    async def email_of(self, token: str, audience: str) -> str:
        """The service account that a token is of. Raises UnauthorizedError."""
        certificates = await self._known()
        found = await asyncio.to_thread(_verified, token, certificates, audience)
        if found is None:
            raise UnauthorizedError(
                "the OIDC token is not one of Google's for this audience, or it is over"
            )
        email = found.get("email")
        if found.get("iss") not in _ISSUERS or found.get("email_verified") is not True:
            raise UnauthorizedError("the OIDC token is of another issuer, or names no account")
        return email if isinstance(email, str) else ""

    async def _known(self) -> Mapping[str, str]:
        async with self._fetching:
            age_s = self._clock() - self._fetched_at
            if age_s >= (_KEPT_S if self._certificates else _NOT_AGAIN_S):
                self._fetched_at = self._clock()
                self._certificates = await _fetched() or self._certificates
        if not self._certificates:
            raise NoEndpointError("Google's certificates cannot be fetched now", _NOT_AGAIN_S)
        return self._certificates


def _verified(
    token: str, certificates: Mapping[str, str], audience: str
) -> Mapping[str, Any] | None:
    from google.auth import exceptions, jwt  # noqa: PLC0415  an extra

    try:
        return jwt.decode(  # type: ignore[no-any-return, no-untyped-call]
            token, certs=certificates, audience=audience, clock_skew_in_seconds=_SKEW_S
        )
    except (ValueError, exceptions.GoogleAuthError):
        return None


async def _fetched() -> Mapping[str, str]:
    """Certificates by key id; none if they cannot be had."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(CERTIFICATES_URL, allow_redirects=False) as response,
        ):
            content = b""
            while part := await response.content.read(_MAX_BYTES):
                content += part
                if len(content) > _MAX_BYTES:
                    return {}
            return msgspec.json.decode(content, type=dict[str, str])
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
