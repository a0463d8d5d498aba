"""The model repository on disk: `ROOT/<name>/<version>/model.onnx`, `model.yaml` beside it.

Decides which names and versions exist and what a model's options are. Never loads a model.
All functions touch the file system: not for the event loop.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml

from workers.protocol import BrokenModel, ModelNotFound

MODEL_FILE: Final = "model.onnx"
OPTIONS_FILE: Final = "model.yaml"

# No separators and no leading dot, so that a name can never leave the repository.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dynamic batching: at most `max_batch` rows, gathered for at most `max_delay_ms`."""

    max_batch: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    max_delay_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0

    @property
    def max_delay_s(self) -> float:
        """The delay in seconds."""
        return self.max_delay_ms / 1000


class WarmUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Runs before the model counts as ready, on zeros.

    `shapes` gives the shape of an input where all dynamic dimensions being 1 would not do.
    """

    runs: Annotated[int, msgspec.Meta(ge=0, le=100)] = 1
    shapes: dict[str, tuple[Annotated[int, msgspec.Meta(ge=0, le=65536)], ...]] = {}


class ModelOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `model.yaml` may say.

    `labels` names the classes of the first output; `threads` are the CPU threads of one run.
    """

    batching: Batching | None = None
    labels: tuple[str, ...] = ()
    warm_up: WarmUp = WarmUp()
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One version of one model on disk. `size_bytes` is what its folder takes there."""

    name: str
    version: str
    path: Path
    options: ModelOptions
    size_bytes: int


def list_models(root: Path) -> dict[str, tuple[str, ...]]:
    """Every model with its versions, the oldest first; folders without a model are skipped."""
    found = {
        folder.name: _versions(folder)
        for folder in sorted(root.iterdir())
        if _NAME.fullmatch(folder.name) and folder.is_dir()
    }
    return {name: versions for name, versions in found.items() if versions}


def find_model(root: Path, name: str, version: str | None = None) -> ModelFile:
    """The model's files; without a version the highest one.

    Raises ModelNotFound, or BrokenModel where `model.yaml` is invalid.
    """
    versions = _versions(root / name) if _NAME.fullmatch(name) else ()
    if not versions:
        raise ModelNotFound(f"unknown model {name[:128]!r}")
    chosen = versions[-1] if version is None else version
    if chosen not in versions:
        raise ModelNotFound(
            f"model {name!r} has no version {chosen[:20]!r}; it has {', '.join(versions)}"
        )
    folder = root / name / chosen
    options = _read_options(folder / OPTIONS_FILE)
    return ModelFile(name, chosen, folder / MODEL_FILE, options, _size_bytes(folder))


def _size_bytes(folder: Path) -> int:
    # Weights may lie in files of their own, so all of them count.
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())


def _versions(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    names = [
        entry.name
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name) and (entry / MODEL_FILE).is_file()
    ]
    return tuple(sorted(names, key=int))


def _read_options(path: Path) -> ModelOptions:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ModelOptions()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BrokenModel(f"{path}: {error}") from error
    try:
        return msgspec.convert({} if content is None else content, ModelOptions)
    except msgspec.ValidationError as error:
        raise BrokenModel(f"{path}: {error}") from error
