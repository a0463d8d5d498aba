"""API keys: who a caller is, by the hash of the key they present. Keys themselves are never stored.

A ring without keys belongs to a gateway without `auth.api_keys_file` and is open; a keys file must
hold at least one key, so that an emptied file never opens the gateway.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from router.settings.quantities import COUNT, NUMBER, Quantity, wrong
from router.settings.section import Section
from router.settings.values import Text, TextList

MAX_KEYS = 10_000
MAX_KEY_CHARS = 4096

Label = Annotated[str, Text(r"[A-Za-z0-9._@-]{1,100}", "1..100 characters of A-Z a-z 0-9 . _ @ -")]


class ApiKey(Section):
    """One caller's key and what it may do."""

    name: Label = Field(description="shown in logs; unique")
    sha256: Annotated[
        str, Text(r"[0-9a-f]{64}", "the 64 lower-case hex digits of the key's SHA-256, not the key")
    ] = Field(description="SHA-256 of the key in hex; unique")
    tenant: Label = Field(description="whom requests with this key are counted for")
    rate_per_s: Annotated[float, Quantity(NUMBER, 0.001, 1_000_000)] | None = Field(
        default=None, description="requests per second allowed in the long run; absent: unlimited"
    )
    burst: Annotated[int, Quantity(COUNT, 1, 1_000_000)] | None = Field(
        default=None, description="requests allowed at once; absent: one second's worth"
    )
    models: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="globs of the models allowed; absent: all"
    )

    weight: Annotated[float, Quantity(NUMBER, 0.01, 1000)] = Field(
        default=1.0, description="share of the turns and places that the tenant gets in a queue"
    )

    @field_validator("burst")
    @classmethod
    def _burst_has_a_rate(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("rate_per_s", value) is None:
            raise wrong("needs rate_per_s beside it")
        return value


ApiKeys = Annotated[tuple[ApiKey, ...], Field(min_length=1, max_length=MAX_KEYS)]


def hash_key(key: str) -> str:
    """The SHA-256 of a key in lower-case hex, as the keys file wants it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """The keys of one configuration; immutable."""

    __slots__ = ("_by_hash", "_by_name")

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._by_hash = {key.sha256: key for key in keys}
        self._by_name = {key.name: key for key in self._by_hash.values()}

    def __len__(self) -> int:
        return len(self._by_hash)

    def __iter__(self) -> Iterator[ApiKey]:
        """All of them."""
        return iter(self._by_hash.values())

    @property
    def is_open(self) -> bool:
        """Whether everybody may call, because no keys are configured."""
        return not self._by_hash

    def find(self, key: str) -> ApiKey | None:
        """The entry of a presented key; None if there is none or it is absurdly long.

        The time taken depends on the hash only, which a caller cannot steer without the key, so it
        tells nothing about the keys; and it does not grow with their number.
        """
        return self._by_hash.get(hash_key(key)) if len(key) <= MAX_KEY_CHARS else None

    def named(self, name: str) -> ApiKey | None:
        """The entry of that name."""
        return self._by_name.get(name)
