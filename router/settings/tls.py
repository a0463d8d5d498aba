"""The data port's certificate: files to a context that can serve. Decides what TLS is acceptable.

Errors never quote a file's content.
"""

import ssl
from pathlib import Path


class CertificateError(Exception):
    """A certificate that cannot be served; `is_key` says which of the two files is at fault."""

    def __init__(self, message: str, *, is_key: bool) -> None:
        super().__init__(message)
        self.is_key = is_key


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for HTTP/1.1 over TLS 1.2 or newer. Blocks; raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a callback OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _explained(certificate, error) from error
    return context


def _explained(certificate: Path, error: Exception) -> CertificateError:
    """OpenSSL does not say which of the files it could not use, so the certificate is tried."""
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return CertificateError("is not the key of the certificate", is_key=True)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except (OSError, ValueError):
        return CertificateError("is not a file of PEM certificates", is_key=False)
    return CertificateError(
        "is not a file with a private key in PEM that is not encrypted", is_key=True
    )
