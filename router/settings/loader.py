"""Configuration text to settings, or one error with everything that is wrong, over all files.

Reads files only through the function it is given (certificates, TLS reads again by itself) and the
environment only from the mapping it is given. Opens no socket and starts nothing.
"""

import ssl
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from router.settings.admin_token import AdminToken, AdminTokenError
from router.settings.advice import unknown_models, warnings_about
from router.settings.budgets import nobodys_budgets
from router.settings.certificate_dates import expires_at
from router.settings.document import Document, ScalarNode, SequenceNode, parse, plain
from router.settings.keys import ApiKey, ApiKeys, KeyRing
from router.settings.prices import PriceBook, built_in_prices
from router.settings.pricing import with_prices
from router.settings.problems import ConfigError, KeyPath, Problem
from router.settings.references import wrong_references
from router.settings.schema import Settings
from router.settings.shape import Annotation
from router.settings.shares import too_small_to_share
from router.settings.sharing import wrong_sharing
from router.settings.sources import ReadFile, Sources, read_bounded, sources_of
from router.settings.tls import CertificateError, server_context
from router.settings.validation import validate
from router.settings.values import BASE_DIR, MAX_TEXT_CHARS
from router.settings.webhook_secrets import WebhookSecrets, WebhookSecretsError

T = TypeVar("T")

__all__ = ["ConfigError", "Loaded", "load", "load_text"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, and what in it looks unintended.

    `document` is the file as it was written, to tell lines. `tls_expires_at` is in seconds since
    1970, None for plain HTTP.
    """

    settings: Settings
    keys: KeyRing
    warnings: tuple[Problem, ...]
    sources: Sources
    document: Document
    tls: ssl.SSLContext | None = None
    admin_token: AdminToken | None = None
    tls_expires_at: float | None = None
    webhook_secrets: WebhookSecrets | None = None

    @property
    def content_hash(self) -> str:
        """A hash of the configuration and of every file it includes."""
        return self.sources.content_hash


def load(path: Path, environment: Mapping[str, str], read_file: ReadFile = read_bounded) -> Loaded:
    """Reads `path` and the files it names. Blocks; raises ConfigError with all problems."""
    path = path.absolute()
    reading = _Reading(environment, path.parent, read_file)
    document = reading.document(path, str(path))
    return _load(reading, document)


def load_text(
    content: str | bytes,
    *,
    environment: Mapping[str, str],
    base_dir: Path,
    read_file: ReadFile,
    file: str = "router.yaml",
) -> Loaded:
    """Settings from the content of a file called `file`; raises ConfigError with all problems."""
    reading = _Reading(environment, base_dir, read_file)
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    reading.contents[base_dir / file] = data
    return _load(reading, parse(data, environment, file))


@dataclass(slots=True)
class _Reading:
    """One load: where it reads from, and what it has read and found wrong so far."""

    environment: Mapping[str, str]
    base_dir: Path
    read_file: ReadFile
    contents: dict[Path, bytes | None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def document(self, path: Path, file: str) -> Document:
        """Reads and parses a file; whatever is wrong with it is in the document."""
        try:
            content = self.read_file(path)
        except OSError as error:
            self.contents[path] = None
            reason = error.strerror or "unknown reason"
            problem = Problem(file, None, "", None, f"cannot be read: {reason}")
            return Document(file, None, (problem,))
        self.contents[path] = content
        return parse(content, self.environment, file)

    def validated(self, annotation: Annotation, document: Document, data: object) -> Any:  # noqa: ANN401 - checked
        """The value of a document; whatever is wrong joins the problems, once for each key."""
        self.problems += document.problems
        if document.root is None:
            if not document.problems:
                self.problems.append(Problem(document.file, None, "", None, "is empty"))
            return None
        context = {BASE_DIR: self.base_dir}
        value, problems = validate(annotation, data, document, context)
        told = {problem.key for problem in document.problems}
        self.problems += [problem for problem in problems if problem.key not in told]
        return value


def _load(reading: _Reading, document: Document) -> Loaded:
    data = plain(document.root)
    prices = _prices(reading, document, data)
    settings = reading.validated(Settings, document, with_prices(data, prices))
    for group, name in (("models", "name"), ("rules", "name"), ("budgets", "tenant")):
        reading.problems += _repeated(document, (group,), name)
    wrong = list(wrong_references(data))
    if settings:
        wrong += [*too_small_to_share(settings), *wrong_sharing(settings)]
    told = {problem.key for problem in reading.problems}
    problems = [document.problem(path, message) for path, message in wrong]
    reading.problems += [problem for problem in problems if problem.key not in told]
    keys = _keys(reading, document, data, settings)
    tls, tls_expires_at = _tls(reading, document, data)
    admin_token = _secret(reading, document, data, ("server", "admin_token_file"), AdminToken.read)
    secrets_at = ("jobs", "deliveries", "secret_file")
    secrets = _secret(reading, document, data, secrets_at, WebhookSecrets.read)
    sources = sources_of(reading.contents.items())
    if reading.problems:
        order = {str(file): index for index, file in enumerate((document.file, *sources.files))}
        ranked = sorted(reading.problems, key=lambda p: (order.get(p.file, 0), p.line or 0))
        raise ConfigError(ranked, sources)
    warnings = (*reading.warnings, *warnings_about(settings, document))
    return Loaded(
        settings, keys, warnings, sources, document, tls, admin_token, tls_expires_at, secrets
    )


def _path(reading: _Reading, value: object) -> Path | None:
    # Data not validated yet: what is no usable path is reported when the settings are validated.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        return None
    return reading.base_dir / value if value.isprintable() else None


def _named_file(
    reading: _Reading, document: Document, data: object, *place: str
) -> tuple[Path, bytes] | None:
    """The file that the key at `place` names, kept as a source; None if there is none to read."""
    value = data
    for key in place:
        value = _at(value, key)
    path = _path(reading, value)
    if path is None:
        return None
    try:
        content = reading.contents[path] = reading.read_file(path)
    except OSError as error:
        reading.contents[path] = None
        message = f"{path}: cannot be read: {error.strerror or 'unknown reason'}"
        reading.problems.append(document.problem(place, message))
        return None
    return path, content


def _included(reading: _Reading, document: Document, data: object, *place: str) -> Document | None:
    found = _named_file(reading, document, data, *place)
    if found is None:
        return None
    path, content = found
    return parse(content, reading.environment, str(path))


def _prices(reading: _Reading, settings: Document, data: object) -> PriceBook:
    document = _included(reading, settings, data, "prices")
    if document is None:
        return built_in_prices()
    book = reading.validated(PriceBook, document, plain(document.root))
    # With a broken prices file the rest is still checked, as if the prices had been there.
    return book if isinstance(book, PriceBook) else built_in_prices()


def _keys(reading: _Reading, settings: Document, data: object, valid: Settings | None) -> KeyRing:
    document = _included(reading, settings, data, "auth", "api_keys_file")
    if document is None:
        reading.warnings += _nobodys(settings, valid, ())
        return KeyRing()
    keys: tuple[ApiKey, ...] | None = reading.validated(ApiKeys, document, plain(document.root))
    for key in ("name", "sha256"):
        reading.problems += _repeated(document, (), key)
    if keys is not None and valid is not None:
        unknown = unknown_models(keys, [model.name for model in valid.models])
        reading.warnings += [document.problem(path, text) for path, text in unknown]
        reading.warnings += _nobodys(settings, valid, keys)
    return KeyRing(keys or ())


def _nobodys(settings: Document, valid: Settings | None, keys: Iterable[ApiKey]) -> list[Problem]:
    budgets = valid.budgets if valid is not None else ()
    return [settings.problem(path, text) for path, text in nobodys_budgets(budgets, keys)]


def _tls(
    reading: _Reading, document: Document, data: object
) -> tuple[ssl.SSLContext | None, float | None]:
    """The data port's certificate. Its files count as sources, so that a renewal is noticed."""
    # Both are read, to tell of both.
    certificate = _named_file(reading, document, data, "server", "tls", "certificate")
    key = _named_file(reading, document, data, "server", "tls", "key")
    if certificate is None or key is None:
        return None, None
    try:
        return server_context(certificate[0], key[0]), expires_at(certificate[1])
    except CertificateError as error:
        place = ("server", "tls", "key" if error.is_key else "certificate")
        reading.problems.append(document.problem(place, str(error)))
        return None, None


def _secret(
    reading: _Reading, document: Document, data: object, place: tuple[str, ...],
    read: Callable[[bytes], T],
) -> T | None:  # fmt: skip
    """The secret in a file, None if there is none. The file is a source: a new one is noticed."""
    found = _named_file(reading, document, data, *place)
    if found is None:
        return None
    path, content = found
    if _is_readable_by_all(path):
        warning = document.problem(place, f"{path}: can be read by everybody on this machine")
        reading.warnings.append(warning)
    try:
        return read(content)
    except (AdminTokenError, WebhookSecretsError) as error:
        reading.problems.append(document.problem(place, f"{path}: {error}"))
        return None


def _is_readable_by_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:  # replaced since it was read
        return False


def _at(data: object, key: str) -> object:
    return data.get(key) if isinstance(data, dict) else None


def _repeated(document: Document, path: KeyPath, key: str) -> list[Problem]:
    """A problem for each list item at `path` whose `key` an earlier one already has."""
    items = document.node(path)
    first_lines: dict[object, int] = {}
    problems = []
    for index in range(len(items.items) if isinstance(items, SequenceNode) else 0):
        place = (*path, index, key)
        node = document.node(place)
        if not isinstance(node, ScalarNode):
            continue
        if node.value in first_lines:
            message = f"must be unique (also on line {first_lines[node.value]})"
            problems.append(document.problem(place, message))
        first_lines.setdefault(node.value, node.line)
    return problems
