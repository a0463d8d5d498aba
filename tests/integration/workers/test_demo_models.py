"""The real demo models give answers a person can check."""

from pathlib import Path

import numpy as np
import pytest

from workers.demo.inputs import (
    Arrays,
    magika_answer,
    magika_input,
    minilm_embedding,
    minilm_input,
    similarity,
    textdet_input,
    textdet_regions,
)
from workers.demo.models import TOKENIZER_FILE
from workers.demo.wordpiece import load_wordpiece
from workers.protocol import Datatype, InferRequest, Tensor
from workers.repository import list_models
from workers.service import Catalog

PROJECT = Path(__file__).parents[3]
REPOSITORY = PROJECT / ".demo" / "models"
DATATYPES = {"int32": Datatype.INT32, "int64": Datatype.INT64, "float32": Datatype.FP32}

pytestmark = pytest.mark.skipif(
    not REPOSITORY.is_dir(), reason="the demo models are not built: run `make test`"
)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(REPOSITORY)


def infer(catalog: Catalog, name: str, inputs: Arrays) -> Arrays:
    tensors = tuple(Tensor(n, DATATYPES[a.dtype.name], a) for n, a in inputs.items())
    response = catalog.load(name).infer(InferRequest(tensors))
    return {tensor.name: tensor.array for tensor in response.outputs}


def test_repository_holds_the_demo_models() -> None:
    assert set(list_models(REPOSITORY)) >= {"magika", "minilm", "textdet"}


# As `magika` itself answers (its raw model label) for the same files.
FILES = [
    ("pyproject.toml", "toml"),
    ("Makefile", "makefile"),
    ("LICENSE", "txt"),
    (".gitignore", "ignorefile"),
    ("workers/codec.py", "python"),
]


@pytest.mark.parametrize(("path", "label"), FILES)
def test_magika_tells_the_type_of_this_projects_files(
    catalog: Catalog, path: str, label: str
) -> None:
    outputs = infer(catalog, "magika", magika_input((PROJECT / path).read_bytes()))
    labels = catalog.load("magika").options.labels
    answer = magika_answer(outputs, labels)
    assert answer.label == label
    assert answer.score > 0.9


# Ids as the reference tokeniser of the same file gives them.
SENTENCES = [
    (
        "Hello, World! it's naïve café—Ünïcode 你好 foo_bar $5.00",
        [
            101,
            7592,
            1010,
            2088,
            999,
            2009,
            1005,
            1055,
            15743,
            7668,
            1517,
            27260,
            100,
            100,
            29379,
            1035,
            3347,
            1002,
            1019,
            1012,
            4002,
            102,
        ],
    ),
    ("İstanbul ½ “quotes” …", [101, 9960, 1092, 1523, 16614, 1524, 1529, 102]),
    (
        "e-mail: a@b.co (see [1])",
        [
            101,
            1041,
            1011,
            5653,
            1024,
            1037,
            1030,
            1038,
            1012,
            2522,
            1006,
            2156,
            1031,
            1015,
            1033,
            1007,
            102,
        ],
    ),
]


@pytest.mark.parametrize(("sentence", "ids"), SENTENCES)
def test_sentences_become_the_reference_ids(sentence: str, ids: list[int]) -> None:
    tokens = load_wordpiece(REPOSITORY / "minilm" / "1" / TOKENIZER_FILE)
    assert tokens.encode(sentence) == ids


def test_minilm_finds_what_means_the_same(catalog: Catalog) -> None:
    tokens = load_wordpiece(REPOSITORY / "minilm" / "1" / TOKENIZER_FILE)

    def embed(sentence: str) -> np.ndarray:
        return minilm_embedding(infer(catalog, "minilm", minilm_input(sentence, tokens)))

    cat = embed("The cat sits on the mat.")
    assert similarity(cat, embed("A kitten rests on a rug.")) > 0.5
    assert similarity(cat, embed("Interest rates rose again.")) < 0.2


@pytest.mark.parametrize("side", [320, 640])
def test_textdet_finds_each_drawn_word(catalog: Catalog, side: int) -> None:
    words = ["HYBRID", "ROUTER", "2026"]
    regions = textdet_regions(infer(catalog, "textdet", textdet_input(words, side)))
    assert len(regions) == 3
    letter = 6 * (side // 80)
    for word, region in zip(words, regions, strict=True):
        assert region.width == pytest.approx(len(word) * letter, rel=0.25)
