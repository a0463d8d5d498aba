"""Real inputs for the demo models, as they usually are and shifted on purpose."""

import gettext
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np

from workers.demo.inputs import Arrays, magika_input, minilm_input, textdet_input
from workers.demo.wordpiece import WordPiece

SIDE = 160
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LEAST_FILE = 200
_MOST_FILE = 1 << 20


def files(suffix: str, rng: Random) -> Iterator[Arrays]:
    """What magika sees of files of Python's own library: sources, or bytecode."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(
        path
        for path in folder.rglob(f"*{suffix}")
        if _LEAST_FILE <= path.stat().st_size <= _MOST_FILE
    )
    rng.shuffle(paths)
    while True:
        for path in paths:
            yield magika_input(path.read_bytes())


def sentences(catalogues: list[Path], rng: Random, tokens: WordPiece, *, translated: bool):
    """Messages of programs as minilm gets them: English, or what they are in another language."""
    found: list[str] = []
    for path in catalogues:
        with path.open("rb") as file:
            catalogue: dict[object, object] = vars(gettext.GNUTranslations(file))["_catalog"]
        for key, value in catalogue.items():
            text = value if translated else key
            if isinstance(text, str) and isinstance(key, str) and 30 <= len(key) <= 120:
                found.append(text)
    found = sorted(set(found))
    rng.shuffle(found)
    while True:
        for text in found:
            yield minilm_input(text, tokens)


def pictures(rng: Random, *, blur: int = 0) -> Iterator[Arrays]:
    """White pictures with words, sharp or blurred over so many pixels."""
    while True:
        words = [
            "".join(rng.choices(_LETTERS, k=rng.randint(2, 9))) for _ in range(rng.randint(1, 4))
        ]
        picture = textdet_input(words, SIDE)["x"]
        yield {"x": _blurred(picture, blur) if blur else picture}


def _blurred(picture: np.ndarray, width: int) -> np.ndarray:
    kernel = np.ones(width, np.float32) / width
    for axis in (2, 3):
        picture = np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), axis, picture)
    return picture.astype(np.float32)
