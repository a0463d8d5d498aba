"""How a call proves to a platform that it may be made: headers, from credentials held in memory.

Each kind turns the present snapshot of a credential into headers. Nothing here fetches or waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.backends.serverless.refresher import Refresher
from router.backends.serverless.sigv4 import AwsCredentials, Scope, Signable, sign
from router.domain.clock import Clock


class Access(Protocol):
    """Authenticates calls. `has_credentials` says that a 401 or 403 is about what it adds."""

    @property
    def has_credentials(self) -> bool:
        """Whether it adds anything that a platform could refuse."""
        ...

    def headers(self, request: Signable) -> list[tuple[str, str]]:
        """The headers to add to a call. Must not block. Raises PlatformRefusedError."""
        ...

    def refused(self) -> None:
        """The platform did not accept what `headers` gave."""
        ...


@dataclass(frozen=True, slots=True)
class FixedHeaders:
    """The same headers for every call, perhaps none; their values come from the configuration."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def has_credentials(self) -> bool:
        """Whether there is any header."""
        return bool(self.values)

    def headers(self, request: Signable) -> list[tuple[str, str]]:
        """The configured headers."""
        del request
        return list(self.values.items())

    def refused(self) -> None:
        """Nothing can be fetched anew: the configuration has to change."""


@dataclass(frozen=True, slots=True)
class SecretHeader:
    """One header whose value is `prefix` and a secret: a function key, an identity token."""

    name: str
    secret: Refresher[str]
    prefix: str = ""

    @property
    def has_credentials(self) -> bool:
        """Always."""
        return True

    def headers(self, request: Signable) -> list[tuple[str, str]]:
        """The header with the present secret."""
        del request
        return [(self.name, self.prefix + self.secret.current())]

    def refused(self) -> None:
        """Fetch the secret anew."""
        self.secret.refused()


@dataclass(frozen=True, slots=True)
class AllOf:
    """What several kinds add."""

    parts: tuple[Access, ...]

    @property
    def has_credentials(self) -> bool:
        """Whether any of them has."""
        return any(part.has_credentials for part in self.parts)

    def headers(self, request: Signable) -> list[tuple[str, str]]:
        """The headers of all."""
        return [header for part in self.parts for header in part.headers(request)]

    def refused(self) -> None:
        """Nobody says which of them was refused."""
        for part in self.parts:
            part.refused()


@dataclass(frozen=True, slots=True)
class Signature:
    """AWS Signature Version 4."""

    credentials: Refresher[AwsCredentials]
    scope: Scope
    wall_clock: Clock

    @property
    def has_credentials(self) -> bool:
        """Always."""
        return True

    def headers(self, request: Signable) -> list[tuple[str, str]]:
        """Date, token and signature over the request's headers; hashes the whole body."""
        signed = sign(request, self.credentials.current(), self.scope, self.wall_clock())
        return signed[len(request.headers) :]

    def refused(self) -> None:
        """Fetch the credentials anew."""
        self.credentials.refused()
