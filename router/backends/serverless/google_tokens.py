"""Google ID tokens for one audience: from the metadata server, or with a service account's key.

Both are called by a `Refresher` only. The tokens are not verified here: whoever receives one does.
"""

import asyncio
import binascii
from base64 import urlsafe_b64decode
from pathlib import Path
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
        return _fetched(answer.body.decode("ascii", "replace").strip())


class ServiceAccountTokens:
    """Tokens got with a service account's key file (needs the optional extra `google`)."""

    def __init__(self, key_file: Path, audience: str) -> None:
        self._key_file = key_file
        self._audience = audience

    async def fetch(self) -> Fetched[str]:
        """A token. Raises CredentialError."""
        return _fetched(await asyncio.to_thread(self._fetch))

    def _fetch(self) -> str:
        try:
            import urllib3  # noqa: PLC0415 - an optional extra
            from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
            from google.auth.transport.urllib3 import Request  # noqa: PLC0415
            from google.oauth2.service_account import IDTokenCredentials  # noqa: PLC0415
        except ImportError as error:
            raise CredentialError(
                "google-auth is missing: install hybrid-router[google]"
            ) from error
        timeout = urllib3.Timeout(total=_TIMEOUT_S)
        try:
            with urllib3.PoolManager(timeout=timeout, retries=1) as pool:
                # The file is read each time, so that a rotated key is taken up.
                credentials = IDTokenCredentials.from_service_account_file(  # type: ignore[no-untyped-call]
                    str(self._key_file), target_audience=self._audience
                )
                credentials.refresh(Request(pool))  # type: ignore[no-untyped-call]
        except OSError as error:
            raise CredentialError(f"the key file cannot be read: {error.strerror}") from error
        except (ValueError, GoogleAuthError) as error:
            # Their texts may quote the file or the token server's answer.
            raise CredentialError(f"the key gave no token ({type(error).__name__})") from error
        return str(credentials.token)


class _Claims(msgspec.Struct):
    exp: float


def _fetched(token: str) -> Fetched[str]:
    """The token with its expiry. Raises CredentialError if it is no token."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(urlsafe_b64decode(payload + "=="), type=_Claims)
    except (IndexError, binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise CredentialError("what came is not an ID token") from error
    return Fetched(token, expires_at=claims.exp)
