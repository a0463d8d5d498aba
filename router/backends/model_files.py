"""Whether the bundled workers will find a model: the layout of their repository, as they read it.

Looks at names only and loads nothing. Blocks: not for the event loop.
"""

import difflib
import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_MODEL_FILE = "model.onnx"
_SHOWN = 5


def why_missing(
    repository: Path, name: str, version: str | None, *, for_clients: bool = False
) -> str | None:
    """What keeps workers from the model, or from that version of it; None if they will find it.

    Clients are not told the names of other models: they may not be theirs to see.
    """
    try:
        known = _versions(repository / name) if _NAME.fullmatch(name) else []
        if not known:
            nearest = "" if for_clients else _nearest(repository, name)
            return f"model {name} is not in the repository{nearest}"
    except OSError as error:
        return f"the repository cannot be read: {error.strerror or 'unknown reason'}"
    if version is None or version in known:
        return None
    listed = ", ".join(known[-_SHOWN:])
    return f"model {name} has no version {version} in the repository; it has {listed}"


def _versions(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    found = [
        entry.name
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name) and (entry / _MODEL_FILE).is_file()
    ]
    return sorted(found, key=int)


def _nearest(repository: Path, name: str) -> str:
    """The name that was probably meant, if there is one. Raises OSError without a repository."""
    names = [entry.name for entry in repository.iterdir() if _versions(entry)]
    nearest = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {nearest[0]}?" if nearest else ""
