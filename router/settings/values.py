"""The texts of the configuration: names, addresses, URLs, paths and payload comparisons.

Each type knows the sentence that describes its valid values, so that errors and the reference table
cannot disagree. Nothing here reads files or the environment, and no message repeats the value.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from router.domain.addressing import MODEL_NAME, VERSION
from router.settings.quantities import show_size, size_bytes, wrong

BASE_DIR = "base_dir"
"""Key of the validation context holding the directory that relative paths start from."""

MAX_TEXT_CHARS = 4096
MAX_LIST_ITEMS = 100

_COMPARISON = re.compile(r"(>=|<=|>|<) ?(.+)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Described:
    """Words for a type whose valid values are checked elsewhere."""

    range: str

    @property
    def wanted(self) -> str:
        """What an error says."""
        return f"must be {self.range}"


@dataclass(frozen=True, slots=True)
class Text:
    """A string matching `pattern` as a whole; `range` says so in words."""

    pattern: str
    range: str

    @property
    def wanted(self) -> str:
        """What an error says."""
        return f"must be {self.range}"

    def read(self, value: object) -> str:
        """`value` unchanged, or the error saying what was wanted."""
        if not isinstance(value, str):
            raise wrong(f"{self.wanted}, in quotes")
        if len(value) > MAX_TEXT_CHARS or _CONTROL.search(value):
            raise wrong(
                f"{self.wanted}, without control characters, at most {MAX_TEXT_CHARS} characters"
            )
        if not re.fullmatch(self.pattern, value):
            raise wrong(self.wanted)
        return value

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


ModelName = Annotated[
    str,
    Text(
        MODEL_NAME,
        "1..200 characters of A-Z a-z 0-9 . _ : @ - with / between parts, none of them . or ..,"
        " and not :predict at the end",
    ),
]


Version = Annotated[
    str, Text(VERSION, "a version of 1..100 characters of A-Z a-z 0-9 . _ -, not . or ..")
]


OpenAIPath = Annotated[
    str,
    Text(
        r"(?!/v1/models(/|\Z))(?!/v2(\Z|/(models|health|repository|trace|logging|[a-z]+memory)(/|\Z)))"
        r"(?!.*/\.{1,2}(/|\Z))(/[A-Za-z0-9._-]{1,100}){1,5}",
        "a path of 1..5 parts, without a query, and none that OIP or /v1/models has",
    ),
]


@dataclass(frozen=True, slots=True)
class TextList:
    """One text or a list of texts, stored as a tuple; whole numbers count as their digits."""

    range: str = f"a text or a list of 1..{MAX_LIST_ITEMS} texts"

    @property
    def wanted(self) -> str:
        """What an error says."""
        return f"must be {self.range}"

    def read(self, value: object) -> tuple[str, ...]:
        """`value` as a tuple; raises for an empty list or an item that is not text."""
        items = value if isinstance(value, list | tuple) else [value]
        if not 1 <= len(items) <= MAX_LIST_ITEMS:
            raise wrong(self.wanted)
        return tuple(self._item(item) for item in items)

    def _item(self, item: object) -> str:
        if isinstance(item, int) and not isinstance(item, bool):
            return str(item)
        # 1.10 would silently become 1.1, so a number with a point must be quoted.
        if not isinstance(item, str):
            raise wrong(f"{self.wanted}, each in quotes")
        if not item or len(item) > MAX_TEXT_CHARS or _CONTROL.search(item):
            raise wrong(
                f"{self.wanted} of 1..{MAX_TEXT_CHARS} characters without control characters"
            )
        return item

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute URL with one of `schemes`, a host, and no credentials."""

    schemes: tuple[str, ...]
    empty: bool = False

    @property
    def range(self) -> str:
        """The valid values in words."""
        text = f"a URL starting with {' or '.join(s + '://' for s in self.schemes)}"
        text += ", without user, password, query or fragment"
        return text + (", or empty" if self.empty else "")

    @property
    def wanted(self) -> str:
        """What an error says."""
        return f"must be {self.range}"

    def read(self, value: object) -> str:
        """`value` unchanged, or the error saying what was wanted."""
        if value == "" and self.empty:
            return ""
        if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or not self._is_valid(value):
            raise wrong(self.wanted)
        return value

    def _is_valid(self, value: str) -> bool:
        if _CONTROL.search(value) or any(character.isspace() for character in value):
            return False
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:  # a broken IPv6 host or port
            return False
        if parts.scheme not in self.schemes or port == 0:
            return False
        if parts.scheme == "unix":
            return bool(parts.path)
        bare = "@" not in parts.netloc and not parts.query and not parts.fragment
        return bool(parts.hostname) and bare

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


@dataclass(frozen=True, slots=True)
class FilePath:
    """A path, taken relative to the configuration file; empty (None) only where allowed.

    `words` are values with a meaning of their own, which are kept as text.
    """

    empty: bool = False
    words: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The valid values in words."""
        choices = [*self.words, "a path relative to this file", *(["empty"] if self.empty else [])]
        return ", ".join(choices[:-1]) + f" or {choices[-1]}" if choices[1:] else choices[0]

    @property
    def wanted(self) -> str:
        """What an error says."""
        return f"must be {self.range}"

    def read(self, value: object, info: core_schema.ValidationInfo) -> Path | str | None:
        """An absolute path when the validation context names a base directory."""
        if value in self.words:
            return str(value)
        if self.empty and (value == "" or value is None):
            return None
        if isinstance(value, str | Path) and 0 < len(str(value)) <= MAX_TEXT_CHARS:
            text = str(value)
            if not _CONTROL.search(text) and text.isprintable():
                base: Path = (info.context or {}).get(BASE_DIR, Path())
                return base / text
        raise wrong(self.wanted)

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                _show_optional, when_used="json"
            ),
        )


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, whatever a name server says."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _show_optional(value: object) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen on; port 0 asks the system for a free one."""

    host: str
    port: int

    range = "host:port, such as 127.0.0.1:8080 or [::]:8080, with a port in 0..65535"
    wanted = f"must be {range}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def read(cls, value: object) -> "Address":
        """Parses `host:port` and `[ipv6]:port`; raises the error saying so."""
        if isinstance(value, Address):
            return value
        match = (
            re.fullmatch(
                r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253})):([0-9]{1,5})", value
            )
            if isinstance(value, str)
            else None
        )
        if match is None or int(match[3]) > 65535:
            raise wrong(cls.wanted)
        return cls(match[1] or match[2], int(match[3]))

    @classmethod
    def __get_pydantic_core_schema__(cls, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read,
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )


@dataclass(frozen=True, slots=True)
class PayloadRange:
    """Body sizes in bytes, both ends included; `max_bytes` None means no upper end."""

    min_bytes: int
    max_bytes: int | None

    range = 'a comparison such as ">1MiB", ">=", "<", "<=", or a range ["64KiB", "1MiB"]'
    wanted = f"must be {range}, and leave at least one size"

    def __contains__(self, size: int) -> bool:
        return self.min_bytes <= size and (self.max_bytes is None or size <= self.max_bytes)

    @property
    def is_everything(self) -> bool:
        """Whether every body size is inside."""
        return self.min_bytes == 0 and self.max_bytes is None

    @classmethod
    def read(cls, value: object) -> "PayloadRange":
        """Parses a comparison or a two-item range; raises the error saying so."""
        if isinstance(value, PayloadRange):
            return value
        found = cls._range(value) if isinstance(value, list | tuple) else cls._comparison(value)
        if found is None or (found.max_bytes is not None and found.max_bytes < found.min_bytes):
            raise wrong(cls.wanted)
        return found

    @classmethod
    def _range(cls, value: list[object] | tuple[object, ...]) -> "PayloadRange | None":
        sizes = [size_bytes(item) for item in value]
        if len(sizes) != 2 or sizes[0] is None or sizes[1] is None or sizes[0] < 0:
            return None
        return cls(sizes[0], sizes[1])

    @classmethod
    def _comparison(cls, value: object) -> "PayloadRange | None":
        match = _COMPARISON.fullmatch(value) if isinstance(value, str) else None
        size = size_bytes(match[2]) if match else None
        if match is None or size is None:
            return None
        ranges: dict[str, tuple[int, int | None]] = {
            ">": (size + 1, None),
            ">=": (size, None),
            "<": (0, size - 1),
            "<=": (0, size),
        }
        return cls(*ranges[match[1]])

    def show(self) -> str | list[str]:
        """The inverse of `read`."""
        if self.max_bytes is None:
            return f">={show_size(self.min_bytes)}"
        return [show_size(self.min_bytes), show_size(self.max_bytes)]

    @classmethod
    def __get_pydantic_core_schema__(cls, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.show, when_used="json"
            ),
        )
