"""Certificates of the data port, as the loader reads them: what is wrong is told by its key."""

from pathlib import Path

import pytest

from router.settings.loader import ConfigError, load
from tests.fakes.certificates import make_certificate
from tests.unit.settings.loading import MODEL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files for one configuration."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder, "good")
    make_certificate(folder, "other")
    (folder / "text.pem").write_text("not a certificate\n")
    header = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
    (folder / "locked.key").write_text(header)
    return folder


def configure(folder: Path, tls: str) -> Path:
    file = folder / "router.yaml"
    file.write_text(f"server:\n  tls: {tls}\n{MODEL}")
    return file


def test_a_pair_that_fits_is_loaded_and_counts_as_a_source(folder: Path) -> None:
    loaded = load(configure(folder, "{certificate: good.pem, key: good.key}"), {})
    assert loaded.tls is not None
    assert {folder / "good.pem", folder / "good.key"} <= set(loaded.sources.files)


def test_without_a_certificate_there_is_none(folder: Path) -> None:
    assert load(configure(folder, '{certificate: "", key: ""}'), {}).tls is None


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        ("{certificate: good.pem}", "server.tls.key"),
        ("{key: good.key}", "server.tls.key"),
        ("{certificate: none.pem, key: good.key}", "none.pem: cannot be read"),
        ("{certificate: good.pem, key: none.key}", "none.key: cannot be read"),
        ("{certificate: text.pem, key: good.key}", "server.tls.certificate = text.pem"),
        ("{certificate: good.pem, key: text.pem}", "is not a file with a private key"),
        ("{certificate: good.pem, key: locked.key}", "not encrypted"),
        ("{certificate: good.pem, key: other.key}", "is not the key of the certificate"),
    ],
    ids=[
        "no key", "no certificate", "a certificate that is missing", "a key that is missing",
        "a certificate that is none", "a key that is none", "an encrypted key",
        "the key of another",
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_an_error_with_its_key(folder: Path, tls: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(configure(folder, tls), {})
    assert told in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_missing_file_is_still_watched(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(configure(folder, "{certificate: none.pem, key: good.key}"), {})
    assert folder / "none.pem" in caught.value.sources.files


def test_a_missing_file_is_told_with_its_line_and_key(folder: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(configure(folder, "{certificate: none.pem, key: none.key}"), {})
    found = [(problem.line, problem.key) for problem in error.value.problems]
    assert found == [(2, "server.tls.certificate"), (2, "server.tls.key")]
