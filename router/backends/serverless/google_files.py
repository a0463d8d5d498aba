"""Google ID tokens by a credentials file: a key, workload identity federation, impersonation.

Needs the optional extra `google`. Blocks, so it runs in a thread; only a `Refresher` calls it.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from router.backends.serverless.google_tokens import fetched_token
from router.backends.serverless.refresher import CredentialError, Fetched

_TIMEOUT_S = 5.0
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class FileTokens:
    """Tokens for one audience; the file is read each time, so that a rotated one is taken up."""

    def __init__(self, file: Path, audience: str) -> None:
        self._file = file
        self._audience = audience

    async def fetch(self) -> Fetched[str]:
        """A token. Raises CredentialError."""
        return fetched_token(await asyncio.to_thread(self._fetch))

    def _fetch(self) -> str:
        try:
            import urllib3  # noqa: PLC0415 - an optional extra
            from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
            from google.auth.transport.urllib3 import Request  # noqa: PLC0415
        except ImportError as error:
            raise CredentialError(
                "google-auth is missing: install hybrid-router[google]"
            ) from error
        timeout = urllib3.Timeout(total=_TIMEOUT_S)
        try:
            with urllib3.PoolManager(timeout=timeout, retries=1) as pool:
                document = json.loads(self._file.read_bytes())
                request = Request(pool)  # type: ignore[no-untyped-call]
                return self._tokens_of(document)(document, self._audience, request)
        except OSError as error:
            raise CredentialError(
                f"the credentials file cannot be read: {error.strerror}"
            ) from error
        except (ValueError, KeyError, GoogleAuthError) as error:
            # Their texts may quote the file or a token server's answer.
            kind = type(error).__name__
            raise CredentialError(f"the credentials gave no token ({kind})") from error

    def _tokens_of(self, document: Any) -> Callable[[Any, str, Any], str]:  # noqa: ANN401 - JSON
        kind = document.get("type") if isinstance(document, dict) else None
        match kind:
            case "service_account":
                return _by_key
            case "external_account":
                return _by_federation
            case "impersonated_service_account":
                return _by_impersonation
            case _:
                raise CredentialError(
                    "the credentials file is not of type service_account, external_account or"
                    " impersonated_service_account"
                )


def _by_key(document: Any, audience: str, request: Any) -> str:  # noqa: ANN401 - not typed
    from google.oauth2.service_account import IDTokenCredentials  # noqa: PLC0415

    credentials = IDTokenCredentials.from_service_account_info(  # type: ignore[no-untyped-call]
        document, target_audience=audience
    )
    credentials.refresh(request)
    return str(credentials.token)


def _by_federation(document: Any, audience: str, request: Any) -> str:  # noqa: ANN401 - not typed
    """Exchange the workload's own token, then ask for an ID token of the service account."""
    source = {
        key: value for key, value in document.items() if not key.startswith("service_account_")
    }
    return _impersonated(document, _federated(source), audience, request)


def _by_impersonation(document: Any, audience: str, request: Any) -> str:  # noqa: ANN401 - not typed
    """Ask with somebody's own credentials for an ID token of the service account."""
    source = document["source_credentials"]
    kind = source.get("type") if isinstance(source, dict) else None
    match kind:
        case "service_account":
            from google.oauth2.service_account import Credentials  # noqa: PLC0415

            credentials = Credentials.from_service_account_info(source, scopes=[_SCOPE])  # type: ignore[no-untyped-call]
        case "authorized_user":
            from google.oauth2.credentials import Credentials as User  # noqa: PLC0415

            credentials = User.from_authorized_user_info(source, scopes=[_SCOPE])  # type: ignore[no-untyped-call]
        case _:
            raise CredentialError(
                "the source_credentials are neither of type service_account nor authorized_user"
            )
    return _impersonated(document, credentials, audience, request)


def _impersonated(document: Any, credentials: Any, audience: str, request: Any) -> str:  # noqa: ANN401 - not typed
    """An ID token of the service account that the file names, asked for with `credentials`."""
    url = str(document.get("service_account_impersonation_url", ""))
    account, _, method = url.rpartition(":")
    if method != "generateAccessToken":
        raise CredentialError("the credentials file names no service account to impersonate")
    credentials.refresh(request)
    wanted = {"audience": audience, "includeEmail": True}
    if delegates := document.get("delegates"):
        wanted["delegates"] = delegates
    answer = request(
        url=f"{account}:generateIdToken",
        method="POST",
        headers={
            "authorization": f"Bearer {credentials.token}",
            "content-type": "application/json",
        },
        body=json.dumps(wanted).encode(),
    )
    if answer.status != 200:
        raise CredentialError(f"no ID token for the service account (status {answer.status})")
    return str(json.loads(answer.data)["token"])


def _federated(document: Any) -> Any:  # noqa: ANN401 - google-auth is not typed
    from google.auth import aws, identity_pool  # noqa: PLC0415

    environment = ""
    with suppress(AttributeError):
        environment = str(document["credential_source"].get("environment_id", ""))
    kind = aws if environment.startswith("aws") else identity_pool
    return kind.Credentials.from_info(document, scopes=[_SCOPE])
