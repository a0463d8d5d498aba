"""How a call proves to a platform that it may be made: by lines of its head.

Each kind turns the present snapshot of a credential into lines, and makes anew only what changes
from call to call. Nothing here fetches or waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.backends.serverless.refresher import Refresher
from router.backends.serverless.sigv4 import AwsCredentials, Scope, Signable, Signer
from router.domain.clock import Clock
from router.upstream.head import whole_lines


class Proof(Protocol):
    """What proves calls that differ in their body alone."""

    def lines(self, body: bytes) -> bytes:
        """Whole lines of a call's head. Must not block. Raises PlatformRefusedError."""
        ...


class Access(Protocol):
    """Authenticates calls. `has_credentials` says that a 401 or 403 is about what it adds."""

    @property
    def has_credentials(self) -> bool:
        """Whether it adds anything that a platform could refuse."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """The headers (lower case) that it adds; a client's own do not go on."""
        ...

    def proof(self, calls: Signable) -> Proof:
        """The proof of such calls; it follows the credentials as they change."""
        ...

    def refused(self) -> None:
        """The platform did not accept the proof."""
        ...


class _FixedLines:
    """The same for every call."""

    def __init__(self, lines: bytes) -> None:
        self._lines = lines

    def lines(self, body: bytes) -> bytes:
        del body
        return self._lines


@dataclass(frozen=True, slots=True)
class FixedHeaders:
    """The same headers for every call, perhaps none; their values come from the configuration."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def has_credentials(self) -> bool:
        """Whether there is any header."""
        return bool(self.values)

    @property
    def names(self) -> frozenset[str]:
        """Those of the configured headers."""
        return frozenset(name.lower() for name in self.values)

    def proof(self, calls: Signable) -> Proof:
        """The configured headers."""
        del calls
        return _FixedLines(whole_lines(self.values.items()))

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

    @property
    def names(self) -> frozenset[str]:
        """The one name."""
        return frozenset({self.name.lower()})

    def proof(self, calls: Signable) -> Proof:
        """The header with the present secret."""
        del calls
        return _SecretLine(self)

    def refused(self) -> None:
        """Fetch the secret anew."""
        self.secret.refused()


class _SecretLine:
    """A secret's line, made anew when the secret has changed."""

    def __init__(self, of: SecretHeader) -> None:
        self._of = of
        self._made: tuple[str, bytes] | None = None

    def lines(self, body: bytes) -> bytes:
        del body
        of, made = self._of, self._made
        secret = of.secret.current()
        if made is None or made[0] is not secret:
            made = self._made = secret, whole_lines([(of.name, of.prefix + secret)])
        return made[1]


@dataclass(frozen=True, slots=True)
class AllOf:
    """What several kinds add."""

    parts: tuple[Access, ...]

    @property
    def has_credentials(self) -> bool:
        """Whether any of them has."""
        return any(part.has_credentials for part in self.parts)

    @property
    def names(self) -> frozenset[str]:
        """Those of all."""
        return frozenset[str]().union(*(part.names for part in self.parts))

    def proof(self, calls: Signable) -> Proof:
        """The lines of all."""
        return _AllLines([part.proof(calls) for part in self.parts])

    def refused(self) -> None:
        """Nobody says which of them was refused."""
        for part in self.parts:
            part.refused()


class _AllLines:
    """One proof after the other."""

    def __init__(self, proofs: list[Proof]) -> None:
        self._proofs = proofs

    def lines(self, body: bytes) -> bytes:
        return b"".join(proof.lines(body) for proof in self._proofs)


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

    @property
    def names(self) -> frozenset[str]:
        """Those that a signature consists of."""
        return frozenset({"authorization", "x-amz-date", "x-amz-security-token"})

    def proof(self, calls: Signable) -> Proof:
        """Date, token and signature over the headers and the whole body."""
        return _Signed(self, calls)

    def refused(self) -> None:
        """Fetch the credentials anew."""
        self.credentials.refused()


class _Signed:
    """Signatures by the present credentials."""

    def __init__(self, of: Signature, calls: Signable) -> None:
        self._of = of
        self._calls = calls
        self._signer: Signer | None = None

    def lines(self, body: bytes) -> bytes:
        of, signer = self._of, self._signer
        credentials = of.credentials.current()
        if signer is None or signer.credentials is not credentials:
            signer = self._signer = Signer(self._calls, credentials, of.scope)
        return signer.lines(body, of.wall_clock())
