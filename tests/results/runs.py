"""Runs cases through the `replay` command, and keeps what came out for as long as nothing changed.

What is kept goes by the content of all that has a say: the command, the files it names, the code of
the policy and of the replay. So a second run only repeats what a change has touched.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.results.cases import Case

ROOT = Path(__file__).parents[2]
_CODE = (
    "router/policy", "router/domain", "router/admission", "router/signals", "router/settings",
    "router/backends", "router/replay", "router/runtime.py", "router/assembly",
)  # fmt: skip
_TIMEOUT_S = 3600.0

Figures = dict[str, Any]


class RunFailedError(Exception):
    """A replay ended badly; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the public traces are, where made traces and results go."""

    traces: Path
    out: Path

    @property
    def made(self) -> Path:
        """Traces that are made for the results."""
        return self.out / "traces"


def command(case: Case, seed: int, *, with_baselines: bool) -> str:
    """What a reader would type, from the repository's root, with the traces in $TRACES."""
    arguments = case.arguments(seed, "$TRACES", "build/results/traces")
    shown = [f"'{part}'" if "*" in part else part for part in arguments]
    return " ".join(["hybrid-router replay", *shown, *_extra(with_baselines=with_baselines)])


def kept(case: Case, seed: int, site: Site, *, with_baselines: bool) -> Path:
    """Where the figures of this run are, or will be."""
    digest = hashlib.sha256(_code_digest())
    arguments = case.arguments(seed, "", "") + _extra(with_baselines=with_baselines)
    digest.update(json.dumps(arguments).encode())
    for path in _inputs(case, site):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return site.out / "kept" / f"{case.name}-{seed}-{digest.hexdigest()[:16]}.json"


def figures(case: Case, seed: int, site: Site, *, with_baselines: bool) -> Figures:
    """The document of a run, from before or anew. Raises RunFailedError."""
    path = kept(case, seed, site, with_baselines=with_baselines)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        arguments = case.arguments(seed, site.traces, site.made)
        extra = [*_extra(with_baselines=with_baselines), "--json", str(unfinished)]
        _replay([*arguments, *extra])
        unfinished.rename(path)
    found: Figures = json.loads(path.read_text())
    return found


def _extra(*, with_baselines: bool) -> list[str]:
    return [] if with_baselines else ["--no-baselines"]


def _replay(arguments: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "router", "replay", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if run.returncode:
        raise RunFailedError(run.stderr.strip() or run.stdout.strip())


def _inputs(case: Case, site: Site) -> Iterator[Path]:
    arguments = case.arguments(0, site.traces, site.made)
    for option in ("--config", "--world", "--trace"):
        yield ROOT / arguments[arguments.index(option) + 1]


@cache
def _code_digest() -> bytes:
    digest = hashlib.sha256()
    for part in _CODE:
        place = ROOT / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()
