"""Google ID tokens for one audience, from the metadata server.

Called by a `Refresher` only. The tokens are not verified here: whoever receives one does.
"""

import binascii
from base64 import urlsafe_b64decode
from urllib.parse import quote

import msgspec

from router.backends.serverless.refresher import CredentialError, Fetched
from router.domain.errors import AttemptError
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient

_PATH = "/computeMetadata/v1/instance/service-accounts/default/identity"
_FLAVOR = ("metadata-flavor", "Google")
_TIMEOUT_S = 5.0


class MetadataTokens:
    """Tokens of the machine's, pod's or workload identity's own service account."""

    def __init__(self, upstream: UpstreamClient, server: Address, audience: str) -> None:
        self._upstream = upstream
        self._server = server
        self._target = f"{_PATH}?audience={quote(audience, safe='')}&format=full"

    async def fetch(self) -> Fetched[str]:
        """A token. Raises CredentialError."""
        call = Call("GET", self._target, headers=(_FLAVOR,), is_idempotent=True)
        try:
            answer = await self._upstream.send(self._server, call, timeout_s=_TIMEOUT_S)
        except AttemptError as error:
            raise CredentialError(f"the metadata server failed: {error}") from error
        await answer.aclose()
        if answer.status != 200:
            raise CredentialError(f"the metadata server answered with status {answer.status}")
        if _FLAVOR not in [(name.lower(), value) for name, value in answer.headers]:
            raise CredentialError("what answered is not a metadata server")
        return fetched_token(answer.body.decode("ascii", "replace").strip())


class _Claims(msgspec.Struct):
    exp: float


def fetched_token(token: str) -> Fetched[str]:
    """The token with its expiry. Raises CredentialError if it is no token."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(urlsafe_b64decode(payload + "=="), type=_Claims)
    except (IndexError, binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise CredentialError("what came is not an ID token") from error
    return Fetched(token, expires_at=claims.exp)
