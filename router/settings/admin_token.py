"""The admin port's token: a file's content to something that a caller's word is compared with.

Keeps only a hash, so that nothing that shows a configuration can show the token.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field

MIN_CHARS = 32
"""128 bits of a token in hexadecimal, such as `openssl rand -hex 16` makes."""
MAX_CHARS = 4096

_TOKEN = re.compile(rb"[\x21-\x7e]+")


class AdminTokenError(ValueError):
    """A file that does not hold a token; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class AdminToken:
    """What a caller of the admin port has to present."""

    _digest: bytes = field(repr=False)

    @classmethod
    def read(cls, content: bytes) -> "AdminToken":
        """The token that a file holds, blanks around it left out. Raises AdminTokenError."""
        token = content.strip()
        if not MIN_CHARS <= len(token) <= MAX_CHARS or not _TOKEN.fullmatch(token):
            raise AdminTokenError(
                f"must hold one token of {MIN_CHARS}..{MAX_CHARS} visible ASCII characters,"
                " for example of `openssl rand -hex 32`"
            )
        return cls(hashlib.sha256(token).digest())

    def matches(self, presented: str) -> bool:
        """Whether a caller's token is this one, in a time that does not tell how nearly it is."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(digest, self._digest)
