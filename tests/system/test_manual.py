"""The manual: built strictly, whole without a network, and no build with a link to nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tables import ROOT

UV = Path(sys.executable).with_name("uv")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    mkdocs = ("mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(site))
    lock = str(ROOT / "deploy" / "requirements" / "docs.txt")
    uv = (str(UV), "run", "--quiet", "--no-project", "--python", sys.executable)
    return subprocess.run(
        [*uv, "--with-requirements", lock, *mkdocs],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual") / "site"
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_with_what_it_loads(site: Path):
    loaded = re.compile(r"""<(?:script|img|link)[^>]*?\s(?:src|href)="?([^">\s]+)""")
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for found in loaded.findall(page.read_text()):
            assert "//" not in found, f"{page.name} loads {found}"
            if page.name != "404.html":  # whose links are those of a site's root
                assert (page.parent / found.partition("?")[0]).exists(), f"{page.name}: {found}"


def test_tables_of_the_code_are_in_it(site: Path):
    assert "router_requests_total" in (site / "metrics.html").read_text()
    assert "server.listen" in (site / "configuration.html").read_text()
    assert "below_break_even" in (site / "routing.html").read_text()


@pytest.mark.parametrize("link", ["nowhere.md", "start.md#nothing", "../router/nothing.py"])
def test_a_link_to_nothing_fails(link: str, tmp_path: Path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "hooks.py").write_text((ROOT / "docs" / "hooks.py").read_text())
    for name in re.findall(r"\"([\w/.]+\.md)\": ", (docs / "hooks.py").read_text()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# A page\n")
    (docs / "start.md").write_text(f"# Start\n\n[there]({link})\n")
    config = (ROOT / "mkdocs.yml").read_text().partition("nav:")[0]
    (tmp_path / "mkdocs.yml").write_text(config)
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1
    warned = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert [line for line in warned if link.rpartition("/")[2] in line] == warned
    assert warned
