"""Tokens of Microsoft Entra for a workload that proves who it is by a token in a file, as on AKS.

Called by a `Refresher` only. The cluster renews the file; it is read again for each token.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from router.backends.serverless.azure_identity import fetched_token
from router.backends.serverless.refresher import CredentialError, Fetched
from router.backends.serverless.secret_files import SecretFile
from router.domain.clock import Clock
from router.domain.errors import AttemptError
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_FORM = ("content-type", "application/x-www-form-urlencoded")
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Who asks, and where; the text form holds nothing secret."""

    authority: Address
    tenant: str
    client_id: str
    token_file: Path

    def __str__(self) -> str:
        return f"{self.authority.url}/{self.tenant}"


class WorkloadTokens:
    """Tokens for one resource in exchange for the workload's own."""

    def __init__(
        self, upstream: UpstreamClient, workload: Workload, resource: str, wall_clock: Clock
    ) -> None:
        self._upstream = upstream
        self._workload = workload
        self._resource = resource
        self._wall_clock = wall_clock

    async def fetch(self) -> Fetched[str]:
        """A token. Raises CredentialError."""
        workload = self._workload
        own = (await SecretFile(workload.token_file).fetch()).value
        form = {
            "grant_type": "client_credentials",
            "client_id": workload.client_id,
            "scope": f"{self._resource}/.default",
            "client_assertion_type": _ASSERTION,
            "client_assertion": own,
        }
        call = Call(
            "POST",
            f"/{workload.tenant}/oauth2/v2.0/token",
            headers=(_FORM,),
            body=urlencode(form).encode(),
            is_idempotent=True,
        )
        try:
            answer = await self._upstream.send(workload.authority, call, timeout_s=_TIMEOUT_S)
        except AttemptError as error:
            raise CredentialError(f"the identity service failed: {error}") from error
        await answer.aclose()
        return fetched_token(answer.status, answer.body, self._wall_clock())
