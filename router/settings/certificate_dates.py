"""Until when the certificates in a PEM file are good, read from their bytes.

Python's ssl tells only the dates of a peer's certificate; the package that reads any is optional.
"""

import datetime
import re
import ssl

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_MAX_CERTIFICATES = 20
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17
_BEFORE_VALIDITY = 3
"""Serial number, signature algorithm and issuer (RFC 5280, section 4.1)."""


def expires_at(pem: bytes) -> float | None:
    """When the first of a chain ends, in seconds since 1970; None if that is unknown."""
    blocks = _PEM.findall(pem)[:_MAX_CERTIFICATES]
    try:
        return min(_not_after(ssl.PEM_cert_to_DER_cert(block.decode("ascii"))) for block in blocks)
    except (ValueError, IndexError):  # none at all, or none that is as the standard says
        return None


def _not_after(der: bytes) -> float:
    """Raises ValueError or IndexError."""
    certificate, _ = _value(der, _SEQUENCE)
    rest, _ = _value(certificate, _SEQUENCE)
    if rest[0] == _VERSION:
        _, rest = _value(rest)
    for _ in range(_BEFORE_VALIDITY):
        _, rest = _value(rest)
    validity, _ = _value(rest, _SEQUENCE)
    _, after = _value(validity)
    text, _ = _value(after)
    digits = text.decode("ascii")
    if after[0] == _UTC_TIME:  # two digits of the year, of 1950 to 2049
        digits = ("20" if digits < "50" else "19") + digits
    moment = datetime.datetime.strptime(digits.replace("Z", "+0000"), "%Y%m%d%H%M%S%z")
    return moment.timestamp()


def _value(der: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """The first element's content, and what follows it."""
    if tag is not None and der[0] != tag:
        raise ValueError("not a certificate")
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start])
    return der[start : start + length], der[start + length :]
