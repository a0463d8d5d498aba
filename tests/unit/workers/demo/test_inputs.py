import json
from pathlib import Path

import numpy as np
import pytest

from workers.demo.inputs import (
    FileType,
    Region,
    magika_answer,
    magika_input,
    minilm_embedding,
    minilm_input,
    similarity,
    textdet_input,
    textdet_regions,
)
from workers.demo.wordpiece import WordPiece, load_wordpiece

VOCABULARY = {
    piece: number
    for number, piece in enumerate(
        ["[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "cafe", "!", "##s", "cat", "人", "$"]
    )
}

MAGIKA: list[tuple[str, bytes, list[int], list[int]]] = [
    ("short: stripped and padded", b"  ab \n", [97, 98, 32, 10, 256], [256, 32, 32, 97, 98]),
    ("empty: only padding", b"", [256, 256], [256, 256]),
    ("blank: only padding", b" \n\t ", [256, 256], [256, 256]),
    ("long: both ends", b"a" * 3000 + b"b" * 3000, [97, 97], [98, 98]),
    ("stripped before it is cut", b" " * 3000 + b"x" * 8000, [120, 120], [120, 120]),
    ("blank beyond the block", b" " * 5000 + b"x" * 10, [256, 256], [120, 120]),
]


@pytest.mark.parametrize(
    ("content", "first", "last"), [r[1:] for r in MAGIKA], ids=[r[0] for r in MAGIKA]
)
def test_magika_features(content: bytes, first: list[int], last: list[int]) -> None:
    features = magika_input(content)["bytes"]
    assert features.shape == (1, 2048)
    assert features.dtype == np.int32
    assert features[0, : len(first)].tolist() == first
    assert features[0, -len(last) :].tolist() == last


def test_magika_answer_is_the_most_probable_label() -> None:
    outputs = {"target_label": np.array([[0.25, 0.75]], np.float32)}
    answer = magika_answer(outputs, ["c", "python"])
    assert answer == FileType("python", 0.75)
    assert str(answer) == "python (75%)"


WORDS = [
    ("pieces of a word", "unaffable", ["un", "##aff", "##able"]),
    ("case and accents do not matter", "CAFÉ", ["cafe"]),
    ("punctuation stands alone", "cats!cat", ["cat", "##s", "!", "cat"]),
    ("symbols stand alone", "$cat", ["$", "cat"]),
    ("Chinese characters stand alone", "cat人人", ["cat", "人", "人"]),
    ("unknown word", "dog cat", ["[UNK]", "cat"]),
    ("unknown rest makes the word unknown", "catx", ["[UNK]"]),
    ("word too long", "cat" + "s" * 100, ["[UNK]"]),
    ("control and zero-width characters vanish", "c\u200ba\x00t", ["cat"]),
    ("nothing", " \n\t", []),
]


@pytest.mark.parametrize(("text", "pieces"), [r[1:] for r in WORDS], ids=[r[0] for r in WORDS])
def test_words_become_pieces(text: str, pieces: list[str]) -> None:
    names = ["[CLS]", *pieces, "[SEP]"]
    assert WordPiece(VOCABULARY).encode(text) == [VOCABULARY[name] for name in names]


def test_long_text_is_cut_and_still_ends_with_a_separator() -> None:
    ids = WordPiece(VOCABULARY).encode("cat " * 500, max_tokens=16)
    assert len(ids) == 16
    assert ids[-1] == VOCABULARY["[SEP]"]


@pytest.mark.parametrize("content", ["{}", '{"model": []}', '{"model": {"vocab": 1}}', "nope"])
def test_file_without_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r".+"):
        load_wordpiece(path)


def test_vocabulary_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": VOCABULARY}}))
    inputs = minilm_input("cat", load_wordpiece(path))
    assert inputs["input_ids"].tolist() == [[1, 9, 2]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0]]


def test_embedding_is_the_mean_with_length_one() -> None:
    hidden = np.array([[[3.0, 0.0], [3.0, 8.0]]], np.float32)
    embedding = minilm_embedding({"last_hidden_state": hidden})
    np.testing.assert_allclose(embedding, [0.6, 0.8], rtol=1e-6)
    assert similarity(embedding, embedding) == pytest.approx(1)
    assert similarity(embedding, np.array([0.8, -0.6], np.float32)) == pytest.approx(0)


@pytest.mark.parametrize(("side", "size"), [(320, 1_228_800), (640, 4_915_200)])
def test_picture_has_the_promised_size_and_ink(side: int, size: int) -> None:
    picture = textdet_input(["AB"], side)["x"]
    assert picture.shape == (1, 3, side, side)
    assert picture.nbytes == size
    assert (picture.min(), picture.max()) == (-1, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["é"], "cannot draw 'é'"), (["ABCDEFGHIJKLMN"], "too long"), (["A"] * 9, "at most 4 words")],
)
def test_text_that_cannot_be_drawn_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        textdet_input(words)


def test_regions_are_connected_areas_from_top_to_bottom() -> None:
    probabilities = np.zeros((1, 1, 64, 64), np.float32)
    probabilities[0, 0, 40:48, 8:32] = 0.9
    probabilities[0, 0, 4:12, 0:16] = 0.9
    probabilities[0, 0, 8:20, 12:16] = 0.9  # touches the one above
    probabilities[0, 0, 60, 60] = 0.2  # not probable enough
    regions = textdet_regions({"map": probabilities})
    assert regions == [Region(0, 4, 16, 16), Region(8, 40, 24, 8)]
    assert str(regions[0]) == "16x16 at 0,4"
