"""Numbers with units: how a user's text becomes seconds, bytes, counts and prices, and back.

Units are converted here and nowhere else. Each quantity knows the sentence that describes its
valid range, so that errors and the reference table cannot disagree.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MIB = 1024 * 1024
GIB = 1024 * MIB
HOUR_S = 3600.0

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(us|ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,15})?) ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?")
_SECONDS = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_BYTES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}


def wrong(message: str) -> PydanticCustomError:
    """The error every type raises: `message` says what would have been right."""
    # The text goes through the context because pydantic treats braces in a template as fields.
    return PydanticCustomError("setting", "{text}", {"text": message})


def duration_s(value: object) -> float | None:
    """Seconds of `250ms`, `2s`, `5m`, `1h`; None if `value` is not a duration with a unit."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(Decimal(match[1]) * _SECONDS[match[2]]) if match else None


def size_bytes(value: object) -> int | None:
    """Bytes of `64MiB`, `4.5MB`, `100kB` or a whole number; None if `value` is not a size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return int(Decimal(match[1]) * _BYTES[match[2] or "B"]) if match else None


def show_duration(seconds: float) -> str:
    """The shortest text that `duration_s` reads back as `seconds`."""
    if seconds == 0:
        return "0s"
    for unit in ("h", "m"):
        if seconds % float(_SECONDS[unit]) == 0:
            return f"{seconds / float(_SECONDS[unit]):.0f}{unit}"
    unit = "s" if seconds >= 1 else "ms" if seconds >= 0.001 else "us"
    return f"{seconds / float(_SECONDS[unit]):.12g}{unit}"


def show_size(size: float) -> str:
    """`size` bytes in the largest binary unit that divides it exactly."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size / _BYTES[unit]:.0f}{unit}"
    return f"{size:.0f}B"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    # Not-a-number and infinity are left to the range, which holds neither.
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _show_number(value: float) -> str:
    return f"{value:.12g}"


@dataclass(frozen=True, slots=True)
class Unit:
    """How one kind of number is read and shown; the stored value is the one read over `divisor`."""

    noun: str
    read: Callable[[object], float | None]
    show: Callable[[float], str]
    divisor: int = 1
    shown_as_text: bool = False


COUNT = Unit("a whole number", _whole, _show_number)
NUMBER = Unit("a number", _number, _show_number)
DURATION = Unit(
    "a duration with a unit (such as 250ms, 2s, 5m)", duration_s, show_duration, shown_as_text=True
)
SIZE = Unit("a size (such as 64MiB, 4.5MB, 100kB)", size_bytes, show_size, shown_as_text=True)
MILLISECONDS = Unit("a number of milliseconds", _number, _show_number, divisor=1000)
PER_HOUR = Unit("a price in USD per hour", _number, _show_number, divisor=3600)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number within `low`..`high` (both included, in the unit the user writes)."""

    unit: Unit
    low: float
    high: float

    @property
    def range(self) -> str:
        """The valid values, as a user writes them."""
        return f"{self.unit.show(self.low)}..{self.unit.show(self.high)}"

    @property
    def wanted(self) -> str:
        """What an error says."""
        return f"must be {self.unit.noun} in {self.range}"

    def read(self, value: object) -> float:
        """`value` in the stored unit; raises the error saying what was wanted."""
        number = self.unit.read(value)
        if number is None or not self.low <= number <= self.high:
            raise wrong(self.wanted)
        return number / self.unit.divisor if self.unit.divisor != 1 else number

    def show(self, stored: float) -> str | float:
        """The inverse of `read`, for people and for JSON."""
        if self.unit.shown_as_text:
            return self.unit.show(stored)
        if self.unit.divisor == 1:
            return stored
        return float(self.unit.show(stored * self.unit.divisor))

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self.show, when_used="json"
            ),
        )
