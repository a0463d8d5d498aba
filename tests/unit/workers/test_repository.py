from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.models import write_identity
from workers.protocol import BrokenModel, ModelNotFound
from workers.repository import Batching, ModelOptions, WarmUp, find_model, list_models


def test_highest_version_is_the_default_by_number_not_by_text(tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        write_identity(tmp_path, "m", version)
    assert find_model(tmp_path, "m").version == "10"
    assert find_model(tmp_path, "m", "9").path == tmp_path / "m" / "9" / "model.onnx"
    assert list_models(tmp_path) == {"m": ("2", "9", "10")}


def test_what_is_no_model_is_not_listed(tmp_path: Path) -> None:
    write_identity(tmp_path, "m")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-model" / "1").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    write_identity(tmp_path, ".hidden")
    write_identity(tmp_path, "unversioned", "latest")
    assert list_models(tmp_path) == {"m": ("1",)}


@pytest.mark.parametrize(
    "name", ["../m", "..", ".", "", "a/b", "m\0", "-m", "m" * 200, "/etc", "M\n"]
)
def test_name_can_never_leave_the_repository(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_identity(tmp_path, "m")
    with pytest.raises(ModelNotFound, match="unknown model"):
        find_model(root, name)


@pytest.mark.parametrize("version", ["2", "0", "01", "..", "../1", "latest", "-1", "1\n"])
def test_unknown_version_names_those_there_are(tmp_path: Path, version: str) -> None:
    write_identity(tmp_path, "m")
    with pytest.raises(ModelNotFound, match=r"has no version .*; it has 1"):
        find_model(tmp_path, "m", version)


def test_options_are_read(tmp_path: Path) -> None:
    options = {
        "batching": {"max_batch": 4, "max_delay_ms": 1.5},
        "labels": ["a", "b"],
        "threads": 2,
        "warm_up": {"runs": 3, "shapes": {"x": [1, 2]}},
    }
    write_identity(tmp_path, "m", options=options)
    read = find_model(tmp_path, "m").options
    assert read == ModelOptions(
        batching=Batching(max_batch=4, max_delay_ms=1.5),
        labels=("a", "b"),
        threads=2,
        warm_up=WarmUp(runs=3, shapes={"x": (1, 2)}),
    )
    assert read.batching is not None
    assert read.batching.max_delay_s == 0.0015


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_empty_options_are_the_defaults(tmp_path: Path, text: str) -> None:
    path = write_identity(tmp_path, "m")
    (path.parent / "model.yaml").write_text(text)
    assert find_model(tmp_path, "m").options == ModelOptions()


BAD_OPTIONS: list[tuple[str, Any, str]] = [
    ("unknown key", {"bathcing": {}}, "bathcing"),
    ("unknown nested key", {"batching": {"max_batch": 2, "delay": 1}}, "delay"),
    ("batch of none", {"batching": {"max_batch": 0}}, r"\$.batching.max_batch"),
    ("endless delay", {"batching": {"max_batch": 2, "max_delay_ms": 5000}}, "max_delay_ms"),
    ("no threads", {"threads": 0}, "threads"),
    ("labels are no list", {"labels": "cat"}, "labels"),
    ("a list", ["x"], "object"),
]


@pytest.mark.parametrize(
    ("options", "message"), [r[1:] for r in BAD_OPTIONS], ids=[r[0] for r in BAD_OPTIONS]
)
def test_bad_options_name_the_file_and_the_key(tmp_path: Path, options: Any, message: str) -> None:
    path = write_identity(tmp_path, "m").parent / "model.yaml"
    path.write_text(yaml.safe_dump(options))
    with pytest.raises(BrokenModel, match=message) as caught:
        find_model(tmp_path, "m")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00"], ids=["bad YAML", "not UTF-8"])
def test_unreadable_options_name_the_file(tmp_path: Path, content: bytes) -> None:
    path = write_identity(tmp_path, "m").parent / "model.yaml"
    path.write_bytes(content)
    with pytest.raises(BrokenModel, match=r"model\.yaml"):
        find_model(tmp_path, "m")
