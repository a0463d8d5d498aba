"""The page of the admin port in a real browser: each view, with traffic, without a complaint."""

import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.fakes.upstreams import ok
from tests.integration.harness import Harness
from tests.system.browser import Tab, browsing

pytestmark = pytest.mark.system

PAGE = Path(__file__).parents[2] / "page"
TENANTS = ("checkout", "search", "batch")
VIEWS = {
    "fleet": "document.querySelectorAll('tbody tr').length && document.querySelector('.ribbon')",
    "model/m": "document.querySelector('.ribbon') && document.body.innerText.includes('Replicas')",
    "tenants": "document.body.innerText.includes('checkout')",
    "events": "document.querySelectorAll('.events li').length > 2",
}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Harness]:
    keys = [
        {
            "name": f"{tenant}-key", "tenant": tenant,
            "sha256": hashlib.sha256(tenant.encode()).hexdigest(),
            **({"rate_per_s": 0.1, "burst": 3} if tenant == "batch" else {}),
        }
        for tenant in TENANTS
    ]  # fmt: skip
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    config = {"auth": {"api_keys_file": "keys.yaml"}}
    async with Harness(tmp_path, warm=[ok(), ok()], function=ok(), config=config) as gateway:
        yield gateway


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browsing(tmp_path / "browser") as tab:
        yield tab


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The accessibility checker, as the page's own lock file names it."""
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_bytes((PAGE / name).read_bytes())
    subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=folder, check=True)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


async def send(gateway: Harness) -> None:
    """Some of everything: three tenants, both places, refusals."""
    for number in range(60):
        where = {"x_router_backend": "serverless"} if number % 3 == 0 else {}
        await gateway.infer(b"{}", authorization=f"Bearer {TENANTS[number % 3]}", **where)


async def look(tab: Tab, gateway: Harness, view: str) -> None:
    """Open a view while there is traffic, and wait until it shows it."""
    await tab.tell("Page.navigate", url=f"{gateway.admin}/#{view}")
    await tab.until("document.querySelector('header nav')")
    await tab.until("document.body.innerText.includes('as of')")
    await send(gateway)
    await tab.until(VIEWS[view])


@pytest.mark.parametrize("view", VIEWS)
async def test_each_view_shows_its_traffic_without_a_complaint(gateway, tab, axe, view):
    await look(tab, gateway, view)
    assert tab.complaints == []
    asked = {urlsplit(url).netloc for url in tab.requests if not url.startswith("data:")}
    assert asked == {urlsplit(gateway.admin).netloc}, "it asks nobody else for anything"
    width = await tab.run("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, "nothing is wider than the window"
    await tab.run(f"{axe};0")
    found = await tab.run("axe.run().then(told => told.violations.map(each => each.id))")
    assert found == [], "everybody can read it"


async def test_a_request_that_was_typed_in_is_explained(gateway, tab):
    await look(tab, gateway, "model/m")
    await tab.run("document.querySelector('form button').click()")
    await tab.until("document.querySelector('form + div[role=status] li')")
    assert "because" in await tab.run("document.querySelector('form + div[role=status]').innerText")


async def test_heads_of_tables_sort_by_keyboard(gateway, tab):
    await look(tab, gateway, "tenants")
    await tab.run("document.querySelector('th button').focus()")
    for kind in ("keyDown", "keyUp"):
        await tab.tell(
            "Input.dispatchKeyEvent", type=kind, key="Enter", text="\r" * (kind == "keyDown")
        )
    await tab.until("document.querySelector('th').ariaSort === 'ascending'")
    names = await tab.run(
        "[...document.querySelectorAll('table')[0].querySelectorAll('tbody td:first-child')]"
        ".map(cell => cell.innerText)"
    )
    tenants = [name for name in names if name != "nobody"]  # who has no name comes first
    assert len(tenants) > 1
    assert tenants == sorted(tenants)
