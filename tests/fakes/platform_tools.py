"""Real runtimes of platforms, each in a virtual environment of its own, and processes that end."""

import hashlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".demo" / "platforms"
FUNCTION_REQUIREMENTS = ROOT / "deploy" / "serverless" / "requirements.txt"
READY_S = 60.0


def tool_environment(name: str, *requirements: str) -> Path:
    """The `bin` folder of an environment with these packages; made once, kept for later runs."""
    folder = TOOLS / name
    done = folder / f"done-{hashlib.sha256(repr(requirements).encode()).hexdigest()[:12]}"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, timeout=600)
        done.touch()
    return folder / "bin"


def bundle(platform: str, repository: Path, model: str, out: Path, *more: str) -> Path:
    """What `deploy/serverless/bundle.py` makes of a model for a platform."""
    subprocess.run(
        [
            *(sys.executable, str(ROOT / "deploy" / "serverless" / "bundle.py"), platform),
            *("--repository", str(repository), "--model", model, "--out", str(out), *more),
        ],
        check=True,
        timeout=300,
        capture_output=True,
    )
    return out


@contextmanager
def process(
    command: Sequence[str | Path], ready_url: str, cwd: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A running process whose URL answers; it is gone when the block ends."""
    log = cwd / "process.log"
    with log.open("wb") as output:
        found = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_answers(ready_url, found, log)
        yield found
    finally:
        found.terminate()
        try:
            found.wait(10)
        except subprocess.TimeoutExpired:
            found.kill()
            found.wait(10)


def _wait_until_answers(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + READY_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return  # it answers, if only that it does not know the path
        except OSError:
            is_waiting = running.poll() is None and time.monotonic() < give_up_at
        else:
            return
        assert is_waiting, f"{url} does not answer:\n{log.read_text()[-3000:]}"
        time.sleep(0.05)
