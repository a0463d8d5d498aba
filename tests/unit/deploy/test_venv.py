"""The environment that make uses: a wrong Python is said at once, a stale one is made anew."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tables import ROOT

# Answers what the script asks; `-m venv FOLDER` copies it to where an environment has its Python.
PYTHON = """#!/bin/sh
case "$*" in
*python_version*) echo {version} ;;
*version_info*) exit {old} ;;
"-m venv "*) mkdir -p "$3/bin" "$3/lib/python{short}" && cp "$0" "$3/bin/python" ;;
*) exit 3 ;;
esac
"""


class Machine:
    """A folder with Pythons of several versions on its PATH, and the environment `.venv`."""

    def __init__(self, folder: Path) -> None:
        self.venv = folder / ".venv"
        self._bin = folder / "bin"
        self._bin.mkdir()

    def has(self, name: str, version: str) -> None:
        short = version.rpartition(".")[0]
        old = int(tuple(map(int, version.split("."))) < (3, 11))
        program = self._bin / name
        program.write_text(PYTHON.format(version=version, short=short, old=old))
        program.chmod(0o755)

    def make(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(ROOT / ".ci" / "venv"), str(self.venv), *arguments],
            env={"PATH": f"{self._bin}:{os.defpath}"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    @property
    def version(self) -> str:
        asked = [str(self.venv / "bin" / "python"), "-c", "python_version"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.has("old", "3.10.13")
    machine.has("mine", "3.11.7")
    machine.has("new", "3.12.1")
    return machine


def test_a_python_that_is_too_old_is_told_with_what_to_do(machine: Machine):
    machine.has("python3.12", "3.12.1")
    code, told = machine.make("old")
    assert code == 1
    assert "needs 3.11 or newer, found 3.10.13 (old)" in told
    assert "PYTHON=python3.1" in told
    assert not machine.venv.exists()


def test_no_python_at_all_is_told(machine: Machine):
    code, told = machine.make("nosuch")
    assert code == 1
    assert "needs Python 3.11 or newer; nosuch is none" in told


def test_an_environment_that_works_is_kept_whatever_python_the_system_has(machine: Machine):
    assert machine.make("mine") == (0, "")
    (machine.venv / "kept").touch()
    assert machine.make("new") == (0, "")
    assert machine.make("old") == (0, "")
    assert machine.make("mine", "given") == (0, "")
    assert (machine.venv / "kept").exists()


def test_the_python_that_the_user_names_is_used(machine: Machine):
    machine.make("mine")
    code, told = machine.make("new", "given")
    assert (code, machine.version) == (0, "3.12.1")
    assert "anew: it has Python 3.11, and PYTHON=new is 3.12.1" in told


@pytest.mark.parametrize(
    ("now", "why"),
    [(None, "its Python does not start any more"), ("3.10.13", "it has Python 3.10"),
     ("3.13.0", "its packages are for another Python than 3.13")],
    ids=["gone", "too old", "upgraded below it"],
)  # fmt: skip
def test_a_stale_environment_is_made_anew(machine: Machine, now: str | None, why: str):
    machine.make("mine")
    (machine.venv / ".serve").touch()
    python = machine.venv / "bin" / "python"
    python.unlink()
    if now is not None:
        machine.has("upgraded", now)
        (machine.venv.parent / "bin" / "upgraded").rename(python)
    code, told = machine.make("mine")
    assert (code, machine.version) == (0, "3.11.7")
    assert why in told
    assert not (machine.venv / ".serve").exists()


def test_a_stale_environment_stays_where_there_is_no_other_python(machine: Machine):
    machine.make("mine")
    (machine.venv / "bin" / "python").unlink()
    assert machine.make("old")[0] == 1
    assert (machine.venv / "bin").exists()
