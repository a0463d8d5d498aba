"""Decides what a function declaration may say: names, defaults and ranges.

Parses the JSON of `--config` and `PUT /host/functions` as one full set, reporting every error at
once. It never starts anything and touches the disk only to see that `working_dir` exists.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

MAX_FUNCTIONS = 256
MAX_ENVIRONMENT_BYTES = 4096  # Lambda's own limit for all variables of a function together

_NAME = re.compile(r"[A-Za-z0-9._-]{1,140}")
_HANDLER = re.compile(r"[A-Za-z_][\w./-]*\.[A-Za-z_]\w*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What the platform itself tells a sandbox; a function that changed it would talk to somebody else.
_RESERVED = re.compile(r"AWS_LAMBDA_.*|AWS_EXECUTION_ENV|_HANDLER|LAMBDA_.*|PYTHONPATH")
_SHOWN_ERRORS = 50


class SettingsError(ValueError):
    """The declared set is refused as a whole; `errors` names each key, value and valid range."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One declared function. Equal specs are the same function: its environments stay warm."""

    name: str
    handler: str
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int = 1769
    timeout_s: float = 30.0
    max_concurrency: int = 10
    idle_s: float = 300.0
    init_timeout_s: float = 30.0
    working_dir: str | None = None


@dataclass(frozen=True, slots=True)
class _Range:
    low: float
    high: float
    whole: bool

    def refusal(self, value: object) -> str | None:
        wanted = "a whole number" if self.whole else "a number"
        if (
            not isinstance(value, int if self.whole else int | float)
            or isinstance(value, bool)
            or not self.low <= value <= self.high  # also refuses NaN
        ):
            return f"must be {wanted} in {self.low:g}..{self.high:g}"
        return None


_NUMBERS = {
    "memory_mb": _Range(128, 10240, whole=True),
    "timeout_s": _Range(0.05, 900, whole=False),
    "max_concurrency": _Range(1, 1000, whole=True),
    "idle_s": _Range(0, 86400, whole=False),
    "init_timeout_s": _Range(0.05, 900, whole=False),
}
_TEXTS = {
    "name": (_NAME, "1 to 140 letters, digits, '.', '_' or '-'"),
    "handler": (_HANDLER, "module.function"),
}
_KEYS = (*_TEXTS, "environment", *_NUMBERS, "working_dir")


def parse_functions(document: object) -> list[FunctionSpec]:
    """Return the declared set. Raises SettingsError with all errors of all functions."""
    if not isinstance(document, dict) or set(document) != {"functions"}:
        raise SettingsError(['must be an object with the one key "functions"'])
    entries = document["functions"]
    if not isinstance(entries, list) or len(entries) > MAX_FUNCTIONS:
        raise SettingsError([f"functions must be a list of at most {MAX_FUNCTIONS} functions"])
    errors = [error for i, entry in enumerate(entries) for error in _entry_errors(i, entry)]
    errors += _duplicates(entries)
    if errors:
        raise SettingsError(errors[:_SHOWN_ERRORS])
    return [_spec(entry) for entry in entries]


def _spec(entry: dict[str, object]) -> FunctionSpec:
    return msgspec.convert({k: v for k, v in entry.items() if v is not None}, FunctionSpec)


def _duplicates(entries: list[object]) -> list[str]:
    names = [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    return [f"functions: name = {name!r} is declared more than once" for name in repeated]


def _entry_errors(index: int, entry: object) -> list[str]:
    where = f"functions[{index}]"
    if not isinstance(entry, dict):
        return [f"{where} must be an object"]
    unknown = [f"{where}.{key} is not a known key" for key in entry if key not in _KEYS]
    texts = [
        f"{where}.{key} = {_shown(entry.get(key))}, must be {form}"
        for key, (pattern, form) in _TEXTS.items()
        if not _matches(pattern, entry.get(key))
    ]
    numbers = [
        f"{where}.{key} = {_shown(entry[key])}, {refusal}"
        for key, valid in _NUMBERS.items()
        if entry.get(key) is not None and (refusal := valid.refusal(entry[key]))
    ]
    return (
        unknown
        + texts
        + numbers
        + [f"{where}.{error}" for error in _environment_errors(entry.get("environment"))]
        + [f"{where}.{error}" for error in _working_dir_errors(entry.get("working_dir"))]
    )


def _environment_errors(environment: object) -> list[str]:
    if environment is None:
        return []
    if not isinstance(environment, dict):
        return [f"environment = {_shown(environment)}, must be an object of strings"]
    errors = [error for pair in environment.items() for error in _variable_errors(*pair)]
    size = sum(len(str(key)) + len(str(value)) for key, value in environment.items())
    if size > MAX_ENVIRONMENT_BYTES:
        errors.append(f"environment has {size} characters, must be at most {MAX_ENVIRONMENT_BYTES}")
    return errors


def _variable_errors(key: str, value: object) -> list[str]:
    if not _matches(_VARIABLE, key):
        return [f"environment has the key {_shown(key)}, must be letters, digits and '_'"]
    if _RESERVED.fullmatch(key):
        return [f"environment.{key} is reserved: the platform sets it"]
    if not isinstance(value, str) or "\0" in value:
        return [f"environment.{key} must be a string without NUL"]
    return []


def _working_dir_errors(working_dir: object) -> list[str]:
    if working_dir is None:
        return []
    if isinstance(working_dir, str) and "\0" not in working_dir:
        path = Path(working_dir)
        if path.is_absolute() and path.is_dir() and os.pathsep not in working_dir:
            return []
    return [f"working_dir = {_shown(working_dir)}, must be the absolute path of a directory"]


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _shown(value: object) -> str:
    return repr(value)[:80]
