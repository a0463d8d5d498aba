"""The files a configuration came from, and a hash of their contents to tell when they change."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 1024 * 1024

ReadFile = Callable[[Path], bytes]
"""Returns a file's content, at most one byte more than `MAX_FILE_BYTES`; raises OSError."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files, in the order read, and the hash of their contents."""

    files: tuple[Path, ...]
    content_hash: str


def read_bounded(path: Path) -> bytes:
    """The first `MAX_FILE_BYTES` + 1 bytes of a file; raises OSError. Blocks: not for the loop."""
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def sources_of(contents: Iterable[tuple[Path, bytes | None]]) -> Sources:
    """Hashes the contents; None stands for a file that could not be read."""
    digest = hashlib.sha256()
    files = []
    for path, content in contents:
        files.append(path)
        state = b"unreadable" if content is None else hashlib.sha256(content).digest()
        digest.update(hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).digest() + state)
    return Sources(tuple(files), digest.hexdigest())


def read_sources(files: Iterable[Path], read_file: ReadFile = read_bounded) -> Sources:
    """Reads and hashes the files as they are now. Blocks; never raises for an unreadable file."""
    return sources_of((path, _content(path, read_file)) for path in files)


def _content(path: Path, read_file: ReadFile) -> bytes | None:
    try:
        return read_file(path)
    except OSError:
        return None
