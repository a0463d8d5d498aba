"""Secrets and certificates in files, read again from time to time: a rotation is taken up."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from router.backends.serverless.refresher import CredentialError, Fetched

_MAX_SECRET_BYTES = 8192
_LOOK_AGAIN_S = 30.0


class SecretFile:
    """A file that holds one secret, on one line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch(self) -> Fetched[str]:
        """The secret. Raises CredentialError."""
        return Fetched(await asyncio.to_thread(self._read), look_again_s=_LOOK_AGAIN_S)

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                content = file.read(_MAX_SECRET_BYTES + 1)
        except OSError as error:
            raise CredentialError(f"the file cannot be read: {error.strerror}") from error
        secret = content.decode("ascii", "replace").strip()
        # What cannot be a header's value must not reach one; U+FFFD is not ASCII.
        if not secret or len(content) > _MAX_SECRET_BYTES or not _is_header_value(secret):
            raise CredentialError(
                f"the file must hold one line of 1..{_MAX_SECRET_BYTES} ASCII characters"
            )
        return secret


def _is_header_value(text: str) -> bool:
    return text.isascii() and text.isprintable()


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """Which files; None means the system's authorities, and no client certificate."""

    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        """The files that the settings name."""
        files = (self.ca_file, self.cert_file, self.key_file)
        return tuple(file for file in files if file is not None)


class TlsFiles:
    """Builds a TLS context, and a new one only when a file's content has changed."""

    def __init__(self, paths: TlsPaths) -> None:
        self._paths = paths
        self._contents: tuple[bytes, ...] = ()
        self._context: ssl.SSLContext | None = None

    async def fetch(self) -> Fetched[ssl.SSLContext]:
        """The context. Raises CredentialError."""
        return Fetched(await asyncio.to_thread(self._load), look_again_s=_LOOK_AGAIN_S)

    def _load(self) -> ssl.SSLContext:
        paths = self._paths
        try:
            contents = tuple(file.read_bytes() for file in paths.all)
            if self._context is None or contents != self._contents:
                context = ssl.create_default_context(cafile=paths.ca_file)
                if paths.cert_file is not None:
                    # Without a callback OpenSSL would ask for a passphrase on the terminal.
                    context.load_cert_chain(paths.cert_file, paths.key_file, password=lambda: "")
                self._contents, self._context = contents, context
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
            raise CredentialError(f"the TLS files are not usable: {reason or error}") from error
        return self._context
