"""What `check` says about the models of the bundled workers: whether they are there, and load.

A configuration that names one that is not can never serve it. Looks at the disk, so that it has to
run where the models are.
"""

import subprocess
import sys
from collections.abc import Iterator

from router.backends.model_files import why_missing
from router.settings.functions import LocalFunction
from router.settings.loader import Loaded
from router.settings.pools import ProcessPool
from router.settings.problems import KeyPath, Problem
from router.settings.schema import ModelSettings

_LOADS_WITHIN_S = 300.0

Found = Iterator[tuple[KeyPath, str]]


def missing_models(loaded: Loaded) -> list[Problem]:
    """A problem for each model that the workers would not find. Blocks."""
    return [loaded.document.problem(*found) for found in _missing(loaded)]


def broken_models(loaded: Loaded) -> list[Problem]:
    """A problem for each model that does not load, tried in a worker of its own. Blocks for long.

    Those that are missing are left out.
    """
    return [loaded.document.problem(*found) for found in _broken(loaded)]


def _missing(loaded: Loaded) -> Found:
    repository = loaded.settings.workers.repository
    served = list(_served_by_workers(loaded))
    if served and not repository.is_dir():
        yield ("workers", "repository"), f"is not a folder that can be read ({repository})"
        return
    for index, model in served:
        if why_missing(repository, model.backend_name, None) is None:
            key = "version"
        else:
            key = "served_as" if model.served_as is not None else "name"
        told = why_missing(repository, model.backend_name, model.version)
        if told is not None:
            yield ("models", index, key), f"{told} ({repository})"


def _broken(loaded: Loaded) -> Found:
    workers = loaded.settings.workers
    for index, model in _served_by_workers(loaded):
        if why_missing(workers.repository, model.backend_name, model.version) is not None:
            continue
        options = ["--repository", str(workers.repository), "--model", model.backend_name]
        options += ["--version", model.version] if model.version is not None else []
        told = _told_by_a_worker([*options, "--threads", str(workers.threads)])
        if told is not None:
            yield ("models", index, "name"), f"does not load: {told}"


def _told_by_a_worker(options: list[str]) -> str | None:
    """What a worker says that cannot load its model; None if it can."""
    command = [sys.executable, "-m", "workers.try_model", *options]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and names that were validated
            command, capture_output=True, text=True, check=False, timeout=_LOADS_WITHIN_S
        )
    except subprocess.TimeoutExpired:
        return f"not within {_LOADS_WITHIN_S:g} s"
    if done.returncode == 0:
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[-1] if lines else f"the worker ended with status {done.returncode}"


def _served_by_workers(loaded: Loaded) -> Iterator[tuple[int, ModelSettings]]:
    for index, model in enumerate(loaded.settings.models):
        function, pool = model.serverless, model.pool
        has_function = isinstance(function, LocalFunction) and function.enabled
        if has_function or (isinstance(pool, ProcessPool) and pool.enabled and not pool.command):
            yield index, model
