"""AWS credentials by the standard chain: environment, profile, assumed role, container, instance.

The chain is botocore's (the optional extra `aws`), so every set-up that works for AWS's own tools
works here. Blocks, so it runs in a thread; only a `Refresher` calls it.
"""

import asyncio
from typing import Any

from router.backends.serverless.refresher import CredentialError, Fetched
from router.backends.serverless.sigv4 import AwsCredentials

_LOOK_AGAIN_S = 60.0
"""botocore renews what expires 10 to 15 minutes ahead, but only when it is asked."""
_CONNECT_S = 3.0
_READ_S = 10.0


class AwsChain:
    """The chain for one profile; the empty profile is the environment's choice."""

    def __init__(self, profile: str, look_again_s: float = _LOOK_AGAIN_S) -> None:
        self._profile = profile
        self._look_again_s = look_again_s
        self._resolved: Any = None  # botocore is not typed

    async def fetch(self) -> Fetched[AwsCredentials]:
        """The credentials to sign with now. Raises CredentialError."""
        credentials = await asyncio.to_thread(self._fetch)
        return Fetched(credentials, look_again_s=self._look_again_s)

    def _fetch(self) -> AwsCredentials:
        try:
            from botocore.credentials import RefreshableCredentials  # noqa: PLC0415 - an optional extra
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        except ImportError as error:
            raise CredentialError("botocore is missing: install hybrid-router[aws]") from error
        try:
            # Static keys are read anew each time: a file that was rotated is taken up.
            if not isinstance(self._resolved, RefreshableCredentials):
                self._resolved = self._resolve()
            frozen = self._resolved.get_frozen_credentials()
        except ClientError as error:  # the role could not be assumed; the text may name secrets
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise CredentialError(f"AWS refused to give credentials ({code})") from error
        except BotoCoreError as error:
            raise CredentialError(f"the credential chain failed ({_words(error)})") from error
        return AwsCredentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    def _resolve(self) -> Any:  # noqa: ANN401 - botocore is not typed
        from botocore.config import Config  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        session = Session(profile=self._profile or None)
        session.set_default_client_config(
            Config(connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries={"max_attempts": 1})
        )
        credentials = session.get_credentials()
        if credentials is None:
            raise CredentialError(
                "none found in the environment, profile, container or instance metadata"
            )
        return credentials


def _words(error: Exception) -> str:
    """The error's kind and its first line; botocore's own messages name no secret."""
    first = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {first}"
