"""Loads configuration texts without a disk: included files and environment come from the test."""

from collections.abc import Mapping
from pathlib import Path

from router.settings.loader import ConfigError, Loaded, load_text

BASE = Path("/etc/router")
MODEL = "models: [{name: m, slo: {latency_ms: 100}, pool: {kind: process}}]\n"


def load_config(
    text: str | bytes,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
) -> Loaded:
    contents = {BASE / name: content for name, content in (files or {}).items()}

    def read_file(path: Path) -> bytes:
        if path not in contents:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        content = contents[path]
        return content.encode() if isinstance(content, str) else content

    return load_text(text, environment=environment or {}, base_dir=BASE, read_file=read_file)


def problems_of(
    text: str | bytes,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
) -> list[str]:
    """The problems as shown; an empty list if the configuration loads."""
    try:
        load_config(text, environment, files)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []
