"""The URL of a Redis as a value of the configuration."""

import re
from dataclasses import dataclass
from typing import ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from router.domain.redis_url import parse_redis_url
from router.settings.quantities import wrong
from router.settings.values import MAX_TEXT_CHARS

_NEVER = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The URL of a Redis, of sentinels or of a cluster (see `domain.redis_url`), or empty."""

    range: ClassVar[str] = (
        "a URL starting with redis://, redis+sentinel://, redis+cluster:// or unix:// (rediss with"
        " TLS), or empty"
    )

    @property
    def wanted(self) -> str:
        """What an error says."""
        return f"must be {self.range}"

    def read(self, value: object) -> str:
        """`value` unchanged, or the error saying what was wanted."""
        if value == "":
            return ""
        if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or _NEVER.search(value):
            raise wrong(self.wanted)
        try:
            parse_redis_url(value)
        except ValueError as error:
            raise wrong(f"{self.wanted}: {error}") from None
        return value

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)
