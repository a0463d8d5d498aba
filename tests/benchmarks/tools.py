"""The programs a benchmark needs, installed where that is possible, named where it is not.

Debian packages are installed as root; Python programs get a virtual environment each, with the
versions pinned in deploy/requirements/bench.txt. Nothing is installed into the project's own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.children import BenchmarkError

ROOT = Path(__file__).parents[2]
_PINS = ROOT / "deploy" / "requirements" / "bench.txt"
_INSTALL_S = 300.0
_ASK_S = 20.0
_INSTALLED = "installed"


class MissingToolError(BenchmarkError):
    """A program is not there and cannot be installed here."""


class Tools:
    """Finds and installs programs; everything it creates is under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refused: dict[str, str] = {}

    def debian(self, program: str, package: str) -> str:
        """The path of a program from a Debian package. Raises MissingToolError."""
        # Servers are in sbin, which is not on every user's path.
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        found = shutil.which(program, path=path)
        if found is None:
            self._once(package, lambda: _apt_install(package))
            found = shutil.which(program, path=path)
        if found is None:
            raise MissingToolError(f"{program} is not there after installing {package}")
        return found

    def python(self, package: str, program: str) -> Path:
        """A program of a PyPI package, from a virtual environment. Raises MissingToolError."""
        environment = self._folder / package
        found = environment / "bin" / program
        # `python` exists before the package is installed, so its presence proves nothing.
        if not (environment / _INSTALLED).exists():
            self._once(package, lambda: _pip_install(package, environment))
        if not found.exists():
            raise MissingToolError(f"{package} has no program {program}")
        return found

    def environment(self, name: str, *packages: str) -> Path:
        """The programs of an environment with what `NAME.txt` pins, and `packages` as we have them.

        Raises MissingToolError.
        """
        environment = self._folder / name
        if not (environment / _INSTALLED).exists():
            self._once(name, lambda: _install_pinned(name, packages, environment))
        return environment / "bin"

    def compiled(self, source: Path) -> Path:
        """The program made from one C file, rebuilt when that has changed."""
        program = self._folder / source.stem
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            compiler = self.debian("cc", "gcc")
            program.parent.mkdir(parents=True, exist_ok=True)
            run_tool([compiler, "-O2", "-o", str(program), str(source)], "the C upstream")
        return program

    def _once(self, name: str, install: Callable[[], None]) -> None:
        """Try to install; a second request for what failed fails at once."""
        if name in self._refused:
            raise MissingToolError(self._refused[name])
        try:
            install()
        except MissingToolError as error:
            self._refused[name] = str(error)
            raise


def first_line(argv: Sequence[str]) -> str:
    """The first line with text that a program prints; empty if it does not run."""
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_ASK_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (line.strip() for line in done.stdout.splitlines())
    return next(filter(None, lines), "")


def _apt_install(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingToolError(f"install the package {package} (apt-get install {package})")
    # RUNLEVEL=1 keeps the package from starting a service on a public port.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    run_tool(["apt-get", "update"], package, environment)
    run_tool(command, package, environment)


def _pip_install(package: str, environment: Path) -> None:
    run_tool([sys.executable, "-m", "venv", "--clear", str(environment)], package)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    run_tool([*pip, "--disable-pip-version-check", "--constraint", str(_PINS), package], package)
    (environment / _INSTALLED).touch()


def _install_pinned(name: str, packages: Sequence[str], environment: Path) -> None:
    run_tool([sys.executable, "-m", "venv", "--clear", str(environment)], name)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    ours = [f"{package}=={version(package)}" for package in packages]
    pins = str(_PINS.with_name(f"{name}.txt"))
    run_tool([*pip, "--disable-pip-version-check", "-r", pins, *ours], name)
    (environment / _INSTALLED).touch()


def run_tool(argv: Sequence[str], what: str, environment: dict[str, str] | None = None) -> None:
    """Run a command to its end. Raises MissingToolError with the last line it said."""
    try:
        subprocess.run(argv, check=True, capture_output=True, timeout=_INSTALL_S, env=environment)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise MissingToolError(f"{what}: {argv[0]} failed: {said[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingToolError(f"{what}: {argv[0]} failed: {error}") from error
