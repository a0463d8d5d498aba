"""The secrets of Standard Webhooks: a file's content to something that signs messages.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

_PREFIX = b"whsec_"
_BYTES = range(24, 65)
_MAX_SECRETS = 10


class WebhookSecretsError(ValueError):
    """A file that does not hold secrets; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """What messages are signed with: by each secret, so that receivers may know either of two."""

    _keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def read(cls, content: bytes) -> "WebhookSecrets":
        """The secrets that a file holds, one a line. Raises WebhookSecretsError."""
        keys = [_key(line) for line in content.split()]
        if not 1 <= len(keys) <= _MAX_SECRETS or None in keys:
            raise WebhookSecretsError(
                f"must hold 1..{_MAX_SECRETS} lines of whsec_ and the base64 of 24..64 bytes,"
                ' such as of `echo "whsec_$(openssl rand -base64 32)"`'
            )
        return cls(tuple(key for key in keys if key is not None))

    def headers(self, message_id: str, now: float, body: bytes) -> list[tuple[str, str]]:
        """The headers of a message that is sent at `now` (seconds since 1970)."""
        signed = f"{message_id}.{int(now)}.".encode() + body
        macs = [hmac.digest(key, signed, hashlib.sha256) for key in self._keys]
        return [
            ("webhook-id", message_id),
            ("webhook-timestamp", str(int(now))),
            ("webhook-signature", " ".join(f"v1,{base64.b64encode(mac).decode()}" for mac in macs)),
        ]


def _key(line: bytes) -> bytes | None:
    try:
        key = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        return None
    return key if line.startswith(_PREFIX) and len(key) in _BYTES else None
