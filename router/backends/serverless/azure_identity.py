"""Tokens of an Azure managed identity: from the machine's metadata service, or App Service's own.

Called by a `Refresher` only. The tokens are not verified here: whoever receives one does.
"""

from dataclasses import dataclass, field
from urllib.parse import urlencode

import msgspec

from router.backends.serverless.refresher import CredentialError, Fetched
from router.domain.clock import Clock
from router.domain.errors import AttemptError
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient

METADATA_URL = "http://169.254.169.254/metadata/identity/oauth2/token"
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class IdentitySource:
    """Where tokens come from. `secret` is what App Service and its kin want to be shown."""

    server: Address
    path: str
    secret: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.server.url}{self.path}"


class IdentityTokens:
    """Tokens for one resource; `client_id` chooses among several identities of the machine."""

    def __init__(
        self,
        upstream: UpstreamClient,
        source: IdentitySource,
        resource: str,
        client_id: str,
        wall_clock: Clock,
    ) -> None:
        self._upstream = upstream
        self._server = source.server
        self._wall_clock = wall_clock
        query = {"api-version": "2019-08-01" if source.secret else "2018-02-01"}
        query["resource"] = resource
        if client_id:
            query["client_id"] = client_id
        proof = ("x-identity-header", source.secret) if source.secret else ("metadata", "true")
        self._call = Call(
            "GET", f"{source.path}?{urlencode(query)}", headers=(proof,), is_idempotent=True
        )

    async def fetch(self) -> Fetched[str]:
        """A token. Raises CredentialError."""
        try:
            answer = await self._upstream.send(self._server, self._call, timeout_s=_TIMEOUT_S)
        except AttemptError as error:
            raise CredentialError(f"the identity service failed: {error}") from error
        await answer.aclose()
        return fetched_token(answer.status, answer.body, self._wall_clock())


def fetched_token(status: int, body: bytes, now: float) -> Fetched[str]:
    """The token in an identity service's answer. Raises CredentialError if there is none."""
    if status != 200:
        # Its text may name the identity.
        raise CredentialError(f"the identity service answered with status {status}")
    try:
        found = msgspec.json.decode(body, type=_Token, strict=False)
    except msgspec.DecodeError as error:
        raise CredentialError("what the identity service sent is no token") from error
    expires_at = found.expires_on
    if expires_at is None and found.expires_in is not None:
        expires_at = now + found.expires_in
    if expires_at is None or not found.access_token.isascii() or not found.access_token:
        raise CredentialError("what the identity service sent is no token")
    return Fetched(found.access_token, expires_at=expires_at)


class _Token(msgspec.Struct):
    """Numbers come as text from some versions; not all tell both."""

    access_token: str
    expires_on: float | None = None
    expires_in: float | None = None
