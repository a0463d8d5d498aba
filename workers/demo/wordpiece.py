"""WordPiece tokens of uncased BERT vocabularies, read from a `tokenizer.json`.

Decides how a sentence becomes ids. In Python rather than a native library: the demo's sentences
are short, and the worker then needs no further package.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNKNOWN: Final = "[UNK]"
_MAX_WORD_CHARACTERS: Final = 100
_CJK_FIRST, _CJK_LAST = 0x4E00, 0x9FFF


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A vocabulary and its greedy longest-match tokeniser."""

    vocabulary: Mapping[str, int]

    def encode(self, text: str, max_tokens: int = 128) -> list[int]:
        """Ids with [CLS] and [SEP] around them, cut to `max_tokens` in total."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        names = ["[CLS]", *pieces[: max_tokens - 2], "[SEP]"]
        return [self.vocabulary[name] for name in names]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > _MAX_WORD_CHARACTERS:
            return [_UNKNOWN]
        pieces = []
        start = 0
        while start < len(word):
            piece = self._longest(word, start)
            if piece is None:
                return [_UNKNOWN]
            pieces.append(piece)
            start += len(piece) - (2 if start else 0)
        return pieces

    def _longest(self, word: str, start: int) -> str | None:
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            piece = prefix + word[start:end]
            if piece in self.vocabulary:
                return piece
        return None


def load_wordpiece(path: Path) -> WordPiece:
    """The vocabulary of a `tokenizer.json`; raises OSError, or ValueError if it has none."""
    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        model = content["model"]
        vocabulary = {str(piece): int(number) for piece, number in model["vocab"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no WordPiece vocabulary") from error
    return WordPiece(vocabulary)


def _words(text: str) -> Iterator[str]:
    """Lower-case words without accents; punctuation and CJK characters stand alone."""
    word = ""
    for character in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(character)
        if character.isspace():
            if word:
                yield word
            word = ""
        elif category == "Mn" or category[0] == "C":
            continue
        elif _stands_alone(character, category):
            if word:
                yield word
            yield character
            word = ""
        else:
            word += character
    if word:
        yield word


def _stands_alone(character: str, category: str) -> bool:
    is_ascii_symbol = character.isascii() and not character.isalnum()
    is_cjk = _CJK_FIRST <= ord(character) <= _CJK_LAST
    return is_ascii_symbol or is_cjk or category[0] == "P"
