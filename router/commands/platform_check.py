"""What `check` says about functions beyond the settings themselves: files, missing packages.

Looks at the disk and at what is installed, so the same settings may be told differently elsewhere.
"""

from collections.abc import Iterator
from pathlib import Path

from router.gateway.admin.certificate import warning_of
from router.settings.extras import is_installed
from router.settings.fit import missing_extra, unlikely_sizes
from router.settings.functions import (
    AzureFunction,
    GoogleFunction,
    LocalFunction,
    ServerlessSettings,
)
from router.settings.schema import ModelSettings, Settings


def platform_warnings(settings: Settings) -> list[str]:
    """One line for each thing that will probably not work. Blocks."""
    return [text for model in settings.models for text in _about(model, settings)]


def certificate_warning(expires_at: float | None, now: float) -> list[str]:
    """What there is to say about the end of the data port's certificate (seconds since 1970)."""
    warning = warning_of(expires_at, now) if expires_at is not None else None
    return [] if warning is None else [f"server.tls.certificate: {warning}"]


def _about(model: ModelSettings, settings: Settings) -> Iterator[str]:
    function = model.serverless
    if function is None or not function.enabled:
        return
    where = f"model {model.name}: serverless"
    size = _largest_version_bytes(settings.workers.repository / model.backend_name)
    if size is not None:
        for key, text in unlikely_sizes(function, size):
            yield f"{where}.{key} {text}"
    for key, file in _files(function):
        if (problem := _unreadable(file)) is not None:
            yield f"{where}.{key} cannot be read here: {problem}"
    extra = missing_extra(function)
    if extra is not None and not is_installed(extra[0]):
        yield f"{where} needs the package {extra[0]}: pip install 'hybrid-router[{extra[1]}]'"


def _files(function: ServerlessSettings) -> Iterator[tuple[str, Path]]:
    """The files that calls to a function need, by their keys."""
    named: dict[str, Path | None] = {}
    if isinstance(function, GoogleFunction):
        named["credentials_file"] = function.credentials_file
    if isinstance(function, AzureFunction):
        named["key_file"] = function.key_file
        named["identity.token_file"] = function.identity.token_file
    if not isinstance(function, LocalFunction):
        tls = function.tls
        named |= {"tls.ca_file": tls.ca_file, "tls.cert_file": tls.cert_file}
        named["tls.key_file"] = tls.key_file
    return ((key, file) for key, file in named.items() if file is not None)


def _unreadable(file: Path) -> str | None:
    try:
        with file.open("rb"):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def _largest_version_bytes(folder: Path) -> int | None:
    """The size of a model's largest version; None if it is not in the repository."""
    try:
        versions = [version for version in folder.iterdir() if version.is_dir()]
        sizes = [
            sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
            for version in versions
        ]
    except OSError:
        return None
    return max(sizes, default=None)
