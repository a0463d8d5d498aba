"""`check` against the disk: models that the bundled workers would not find, or not load."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from router.backends.model_files import why_missing
from router.cli import main
from tests.fakes.certificates import make_certificate
from tests.fakes.models import write_mlp
from workers.protocol import ModelNotFound
from workers.repository import find_model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for version in ("1", "2", "10"):
        write_mlp(folder, "mymodel", version=version)
    broken = folder / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"not a model")
    (folder / "empty" / "1").mkdir(parents=True)
    return folder


def check(folder: Path, *models: dict[str, Any], deep: bool = False) -> Result:
    whole = {
        "workers": {"repository": str(folder)},
        "models": [
            {"slo": {"latency_ms": 100}, "pool": {"kind": "process"}, **model} for model in models
        ],
    }
    file = folder.parent / "router.yaml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    return CliRunner().invoke(main, ["check", str(file), *(["--deep"] if deep else [])])


def test_what_is_there_is_valid(repository: Path):
    done = check(repository, {"name": "mymodel"}, {"name": "x", "served_as": "mymodel"})
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"name": "mymodle"}, ("models[0].name = mymodle, model mymodle is not in the repository,"
         " did you mean mymodel?")),
        ({"name": "empty"}, "models[0].name = empty, model empty is not in the repository"),
        ({"name": "a/b"}, "models[0].name = a/b, model a/b is not in the repository"),
        ({"name": "mymodel", "served_as": "zzz"}, "models[0].served_as = zzz, model zzz is not"),
        ({"name": "mymodel", "version": "3"}, ("models[0].version = 3, model mymodel has no version"
         " 3 in the repository; it has 1, 2, 10")),
        ({"name": "q", "pool": {"kind": "static", "urls": ["http://h"]},
          "serverless": {"kind": "local"}}, "models[0].name = q, model q is not"),
    ],
    ids=["misspelt", "without a file", "no name for workers", "served as", "a version", "local"],
)  # fmt: skip
def test_what_is_not_in_the_repository_is_refused(
    repository: Path, model: dict[str, Any], told: str
):
    done = check(repository, model)
    assert done.exit_code == 1
    assert f"{repository.parent / 'router.yaml'}:" in done.stderr
    assert told in done.stderr


def test_all_of_them_are_told(repository: Path):
    done = check(repository, {"name": "one"}, {"name": "mymodel"}, {"name": "two"})
    assert [line.split()[1] for line in done.stderr.splitlines()] == [
        "models[0].name", "models[2].name",
    ]  # fmt: skip


def test_a_missing_repository_is_told_once(tmp_path: Path):
    done = check(tmp_path / "nowhere", {"name": "one"}, {"name": "two"})
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "workers.repository" in line


def test_nobody_needs_a_repository_whose_models_run_elsewhere(tmp_path: Path):
    done = check(
        tmp_path / "nowhere",
        {"name": "a", "pool": {"kind": "static", "urls": ["http://h"]}},
        {"name": "b", "pool": {"kind": "process", "command": ["server", "{port}"]}},
        {"name": "c", "serverless": {"kind": "local", "enabled": False},
         "pool": {"kind": "static", "urls": ["http://h"]}},
    )  # fmt: skip
    assert done.exit_code == 0


def test_a_model_that_does_not_load_is_found_by_loading_it(repository: Path):
    assert check(repository, {"name": "broken"}).exit_code == 0
    done = check(repository, {"name": "broken"}, {"name": "mymodel"}, deep=True)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "models[0].name = broken, does not load: " in line
    assert "model.onnx" in line


@pytest.mark.parametrize(
    ("name", "version"),
    [("mymodel", None), ("mymodel", "2"), ("mymodel", "3"), ("mymodel", "02"), ("empty", None),
     ("none", None), ("..", None), ("models/mymodel", None), (".mymodel", None)],
)  # fmt: skip
def test_gateway_and_workers_find_the_same(repository: Path, name: str, version: str | None):
    try:
        find_model(repository, name, version)
        found = True
    except ModelNotFound:
        found = False
    assert (why_missing(repository, name, version) is None) is found


@pytest.mark.parametrize(("days", "is_told"), [(13, True), (15, False)])
def test_a_certificate_that_ends_soon_is_told(tmp_path: Path, days: int, is_told: bool):
    certificate, key = make_certificate(tmp_path, "server", days)
    pool = {"kind": "static", "urls": ["http://127.0.0.1:1"]}
    settings = {
        "server": {"tls": {"certificate": str(certificate), "key": str(key)}},
        "models": [{"name": "m", "slo": {"latency_ms": 500}, "pool": pool}],
    }
    (tmp_path / "tls.yaml").write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(main, ["check", str(tmp_path / "tls.yaml")])
    assert result.exit_code == 0, result.output
    assert ("the certificate of the data port expires in" in result.output) is is_told
