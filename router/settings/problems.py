"""What can be wrong with a configuration, and how it is told: file, line, key, value, valid range.

A `ConfigError` carries every problem at once. Nothing here decides what is valid, and no text shown
is longer than a line, contains control characters, or repeats a secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from router.settings.masking import MASK, is_secret_name, mask_url
from router.settings.sources import Sources

KeyPath = tuple[str | int, ...]
MAX_SHOWN = 100
MAX_PROBLEMS = 1000
"""Problems told of one file by one check; a file with more is not a configuration."""

_MAX_VALUE_CHARS = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong (or, as a warning, doubtful) at one place; `line` starts at 1."""

    file: str
    line: int | None
    key: str
    value: str | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        if not self.key:
            return f"{place}: {self.message}"
        if self.value is None:
            return f"{place}: {self.key} {self.message}"
        return f"{place}: {self.key} = {self.value}, {self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used, with all its problems, in the order of the files.

    `sources` are the files that were read or tried, so that a watcher can wait for a correction.
    """

    def __init__(self, problems: Iterable[Problem], sources: Sources) -> None:
        self.problems = tuple(problems)
        self.sources = sources
        super().__init__(self.problems, sources)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        left_off = len(self.problems) - len(lines)
        return "\n".join([*lines, f"... and {left_off} more"] if left_off else lines)


def show_key(path: KeyPath) -> str:
    """`models[0].slo.latency_ms` for its parts."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + printable(part)
    return text


def show_value(path: KeyPath, text: str) -> str:
    """A scalar as it was written, shortened, or masked when its key or a URL in it is secret."""
    if any(isinstance(part, str) and is_secret_name(part) for part in path[-1:]):
        return MASK
    return printable(mask_url(text)) or '""'


def printable(text: str) -> str:
    """`text` on one line: control characters escaped, the middle left out when it is long."""
    if len(text) > _MAX_VALUE_CHARS:
        text = f"{text[:_MAX_VALUE_CHARS]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
