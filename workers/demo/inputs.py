"""Real inputs for the demo models, and their outputs in words.

Decides how a file, a sentence or a picture becomes tensors, and what the answer says to a
person. Knows neither transport nor server: arrays in, arrays out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workers.demo.wordpiece import WordPiece

Arrays = Mapping[str, NDArray[Any]]
FloatArray = NDArray[np.float32]

SMALL_SIDE: Final = 320  # 1.2 MB as FP32
LARGE_SIDE: Final = 640  # 4.9 MB: over what a function takes once it is base64

_BLOCK_BYTES: Final = 4096
_FEATURE_BYTES: Final = 1024
_PADDING: Final = 256

_TEXT_PROBABILITY: Final = 0.3
_CELL: Final = 4


def magika_input(content: bytes) -> Arrays:
    """The features of a file: its first and last 1024 bytes once stripped of white space.

    Short files are padded with 256 behind the first part and before the last. The model gives no
    meaningful answer below 8 bytes.
    """
    first = content[:_BLOCK_BYTES].lstrip()[:_FEATURE_BYTES]
    last = content[-_BLOCK_BYTES:].rstrip()[-_FEATURE_BYTES:]
    features = np.full(2 * _FEATURE_BYTES, _PADDING, np.int32)
    features[: len(first)] = np.frombuffer(first, np.uint8)
    features[2 * _FEATURE_BYTES - len(last) :] = np.frombuffer(last, np.uint8)
    return {"bytes": features[np.newaxis]}


@dataclass(frozen=True, slots=True)
class FileType:
    """What magika takes a file for, with its probability."""

    label: str
    score: float

    def __str__(self) -> str:
        return f"{self.label} ({self.score:.0%})"


def magika_answer(outputs: Arrays, labels: Sequence[str]) -> FileType:
    """The most probable type; `labels` are the model's own."""
    scores = outputs["target_label"][0]
    best = int(np.argmax(scores))
    return FileType(labels[best], float(scores[best]))


def minilm_input(sentence: str, tokens: WordPiece) -> Arrays:
    """The token ids of one sentence."""
    ids = np.array([tokens.encode(sentence)], np.int64)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def minilm_embedding(outputs: Arrays) -> FloatArray:
    """The sentence's embedding: the mean over its tokens, of length 1."""
    mean = outputs["last_hidden_state"][0].mean(axis=0)
    embedding: FloatArray = (mean / np.linalg.norm(mean)).astype(np.float32)
    return embedding


def similarity(left: FloatArray, right: FloatArray) -> float:
    """The cosine of two embeddings: near 1 for sentences that mean the same."""
    return float(np.dot(left, right))


def textdet_input(words: Sequence[str], side: int = SMALL_SIDE) -> Arrays:
    """A white picture of `side` pixels (a multiple of 32) with one word on each line.

    Words of A-Z and 0-9, at most 9 characters. Raises ValueError for other characters or more
    words than fit.
    """
    picture = np.ones((side, side), np.float32)
    scale = side // 80
    pitch = 18 * scale
    if len(words) * pitch > side:
        raise ValueError(f"at most {side // pitch} words fit")
    for line, word in enumerate(words):
        _draw(picture, word, scale, top=4 * scale + line * pitch, left=4 * scale)
    normalised = (picture - 0.5) / 0.5
    return {"x": np.repeat(normalised[np.newaxis, np.newaxis], 3, axis=1)}


def _draw(picture: FloatArray, word: str, scale: int, *, top: int, left: int) -> None:
    for position, character in enumerate(word):
        ink = np.kron(_glyph(character), np.ones((scale, scale), np.float32))
        x = left + position * 6 * scale
        if x + ink.shape[1] > picture.shape[1]:
            raise ValueError(f"{word!r} is too long for the picture")
        picture[top : top + ink.shape[0], x : x + ink.shape[1]] -= ink


def _glyph(character: str) -> FloatArray:
    rows = _FONT.get(character)
    if rows is None:
        raise ValueError(f"cannot draw {character!r}; use A-Z and 0-9")
    bits = [[(row >> shift) & 1 for shift in range(4, -1, -1)] for row in rows]
    return np.array(bits, np.float32)


@dataclass(frozen=True, slots=True)
class Region:
    """A box with text, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at {self.left},{self.top}"


def textdet_regions(outputs: Arrays) -> list[Region]:
    """The connected areas the model takes for text, from top to bottom."""
    probabilities = next(iter(outputs.values()))[0, 0]
    height, width = (length // _CELL for length in probabilities.shape)
    cells = probabilities[: height * _CELL, : width * _CELL].reshape(height, _CELL, width, _CELL)
    is_text = cells.max(axis=(1, 3)) > _TEXT_PROBABILITY
    return sorted(_regions(is_text), key=lambda region: (region.top, region.left))


def _regions(is_text: NDArray[np.bool_]) -> Iterator[Region]:
    waiting = {(int(y), int(x)) for y, x in np.argwhere(is_text)}
    while waiting:
        area = _flood(waiting, waiting.pop())
        ys, xs = [y for y, _ in area], [x for _, x in area]
        yield Region(
            left=min(xs) * _CELL,
            top=min(ys) * _CELL,
            width=(max(xs) - min(xs) + 1) * _CELL,
            height=(max(ys) - min(ys) + 1) * _CELL,
        )


def _flood(waiting: set[tuple[int, int]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """Move everything connected to `start` out of `waiting`."""
    area = [start]
    for y, x in area:  # grows while it is walked
        for neighbour in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if neighbour in waiting:
                waiting.remove(neighbour)
                area.append(neighbour)
    return area


# 5x7 dot matrix letters, a row per number, the leftmost dot in bit 4.
_FONT: Final[Mapping[str, tuple[int, ...]]] = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 15),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "J": (7, 2, 2, 2, 2, 18, 12),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 17, 25, 21, 19, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "Q": (14, 17, 17, 17, 21, 18, 13),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "V": (17, 17, 17, 17, 17, 10, 4),
    "W": (17, 17, 17, 21, 21, 21, 10),
    "X": (17, 17, 10, 4, 10, 17, 17),
    "Y": (17, 17, 17, 10, 4, 4, 4),
    "Z": (31, 1, 2, 4, 8, 16, 31),
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
}
