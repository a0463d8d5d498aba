"""`init`: what it writes is what `check` takes; it never writes over a file unasked."""

from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.cli import main
from router.commands.starter import FunctionKind, PoolKind
from tests.fakes.models import write_mlp

KINDS = [
    (pool, function)
    for pool, function in product(PoolKind, FunctionKind)
    if pool != PoolKind.NONE or function != FunctionKind.NONE
]


def run(*arguments: object, asked: str = "") -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], input=asked)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_mlp(tmp_path / "models", "mlp")
    return tmp_path / "router.yaml"


def init(file: Path, pool: str = "static", function: str = "none", *more: str) -> Result:
    return run("init", file, "--pool", pool, "--function", function, "--model", "mlp", *more)


@pytest.mark.parametrize(("pool", "function"), KINDS)
def test_check_takes_what_is_written_for(pool: PoolKind, function: FunctionKind, file: Path):
    done = init(file, pool, function)
    assert (done.exit_code, done.stderr) == (0, "")
    checked = run("check", file)
    assert checked.exit_code == 0
    doubted = [line for line in checked.stderr.splitlines() if "key_file is not set" not in line]
    assert not doubted  # a function at Azure that is open to all is doubted, rightly
    text = file.read_text()
    assert (f"kind: {pool} " in text) == (pool != PoolKind.NONE)
    assert (f"kind: {function}" in text) == (function != FunctionKind.NONE)


def test_it_asks_for_what_is_not_given(file: Path):
    done = run("init", file, asked="docker\naws_lambda\nmlp\n")
    assert done.exit_code == 0
    assert "kind: docker" in file.read_text()


def test_a_file_that_is_there_is_kept_unless_forced(file: Path):
    file.write_text("mine")
    done = init(file)
    assert done.exit_code == 1
    assert "--force writes over it" in done.stderr
    assert file.read_text() == "mine"
    assert init(file, "static", "none", "--force").exit_code == 0
    assert run("check", file).exit_code == 0


def test_what_is_still_missing_is_said(file: Path, monkeypatch: pytest.MonkeyPatch):
    done = init(file, "process", "none", "--repository", "elsewhere")
    assert done.exit_code == 0
    assert "workers.repository = elsewhere, is not a folder" in done.stderr
    monkeypatch.setattr("router.settings.extras.find_spec", lambda _name: None)
    done = init(file, "process", "none", "--force")
    assert done.exit_code == 0
    assert 'pip install "hybrid-router[worker]"' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--pool", "none", "--function", "none", "--model", "m"), 2, "one of them must not be"),
        (("--pool", "static", "--function", "none", "--model", "a\nb"), 1, "models[0].name"),
    ],
    ids=["neither pool nor function", "a name that no model can have"],
)
def test_what_cannot_be_is_refused_and_leaves_no_file(
    arguments: tuple[str, ...], code: int, told: str, file: Path
):
    done = run("init", file, *arguments)
    assert done.exit_code == code
    assert told in done.stderr
    assert not file.exists()


@pytest.mark.parametrize("name", ["$HOME", 'say "hi"', "back\\slash", "${X}"])
def test_a_folder_of_any_name_is_written_as_it_is(name: str, file: Path):
    (file.parent / "models").rename(file.parent / name)
    assert init(file, "process", "none", "--repository", name).stderr == ""
    assert run("check", file).exit_code == 0
