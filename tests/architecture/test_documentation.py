"""The documentation's tables are the code's."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from router.cli import main
from router.domain.decision import REASON_HELP, Reason
from router.domain.events import EventKind
from router.gateway.responses import STATUS
from router.telemetry.families import FAMILIES
from tests.architecture.tables import ROOT, tables, written


@pytest.mark.parametrize(("file", "name"), tables())
def test_a_table_is_up_to_date(file: str, name: str):
    assert written(file, name) == tables()[file, name], (
        "run `python -m tests.architecture.tables` and commit the result"
    )


def pages() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages())
def test_links_within_the_repository_lead_somewhere(page: str):
    here = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", here.read_text()):
        name, _, anchor = target.partition("#")
        found = here.parent / name if name else here
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_page_is_in_the_menu():
    menu = set(re.findall(r"(?m)^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text()))
    written = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    elsewhere = dict(re.findall(r'"([\w/.]+)": "([\w/.]+)"', (ROOT / "docs/hooks.py").read_text()))
    assert menu == written | set(elsewhere.values())
    assert [page for page in elsewhere if not (ROOT / page).is_file()] == []


def test_every_extra_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys() - {"dev"}
    told = re.findall(r"(?m)^\| `(\w+)` \|", (ROOT / "docs" / "start.md").read_text())
    assert set(told) == extras


PROSE = ["README.md", *(page for page in pages() if page.startswith(("docs/", "deploy/")))]


@pytest.mark.parametrize("page", PROSE)
def test_what_a_page_names_is_there(page: str):
    text = (ROOT / page).read_text()
    metrics = {family.name for family in FAMILIES}
    named = set(re.findall(r"`(router_[a-z_]+[a-z])(?:\{|`)", text))
    assert {name for name in named if name.removesuffix("_bucket") not in metrics} == set()
    commands = set(re.findall(r"(?m)(?:^|`|bin/)hybrid-router ([a-z][a-z-]+)", text))
    assert commands <= main.commands.keys()
    kinds = set(re.findall(r"events --kind ([a-z_]+)", text))
    assert kinds <= set(EventKind)


def test_troubleshooting_names_errors_that_there_are():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    table = page.partition("## Answers are errors")[2].partition("\n## ")[0]
    codes = {
        code for row in re.findall(r"(?m)^\| (`.*?) \|", table) for code in row.split("`")[1::2]
    }
    assert codes - {"x-router-error"} <= STATUS.keys()
    assert len(codes) > 10


def test_every_reason_is_explained():
    assert set(REASON_HELP) == set(Reason)


def test_the_readme_names_only_make_targets_that_exist():
    targets = {
        line.partition(":")[0]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line[:1].isalpha() and ":" in line
    }
    told = "".join((ROOT / page).read_text() for page in ("README.md", "CONTRIBUTING.md"))
    named = set(re.findall(r"^make ([a-z-]+)", told, re.MULTILINE))
    assert named
    assert named <= targets
