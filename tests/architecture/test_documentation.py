"""The documentation's tables are the code's."""

import re

import pytest

from router.domain.decision import REASON_HELP, Reason
from tests.architecture.tables import ROOT, tables, written


@pytest.mark.parametrize(("file", "name"), tables())
def test_a_table_is_up_to_date(file: str, name: str):
    assert written(file, name) == tables()[file, name], (
        "run `python -m tests.architecture.tables` and commit the result"
    )


def test_every_reason_is_explained():
    assert set(REASON_HELP) == set(Reason)


def test_the_readme_names_only_make_targets_that_exist():
    targets = {
        line.partition(":")[0]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line[:1].isalpha() and ":" in line
    }
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^make ([a-z-]+)", readme, re.MULTILINE))
    assert named
    assert named <= targets
