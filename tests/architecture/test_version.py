"""The version is stated in `router/__init__.py`; where it has to be repeated it is the same."""

import re

import pytest

from router import __version__
from tests.architecture.tables import ROOT
from workers.service import SERVER_VERSION

HELM = "deploy/helm/hybrid-router"


def test_the_workers_have_the_same_version():
    assert __version__ == SERVER_VERSION  # they share no code, and a function has no metadata


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("CHANGELOG.md", r"(?m)^## (\S+) "),
        (f"{HELM}/Chart.yaml", r"(?m)^version: (\S+)$"),
        (f"{HELM}/Chart.yaml", r'(?m)^appVersion: "(\S+)"$'),
        (f"{HELM}/values.yaml", r"hybrid-router-worker:(\S+)"),
    ],
)
def test_files_name_the_version(file: str, pattern: str):
    found = re.search(pattern, (ROOT / file).read_text())
    assert found is not None
    assert found[1] == __version__
