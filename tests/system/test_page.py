"""The page of the admin port in a real browser: each view, with traffic, without a complaint."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes.upstreams import ok
from tests.fakes.valkey import ValkeyProcess, valkey_server
from tests.integration.gateway.conftest import made_up_credentials
from tests.integration.harness import Harness
from tests.system.browser import Tab, browsing
from tests.system.staged import Staged, send, staged

__all__ = ["made_up_credentials", "valkey_server"]

pytestmark = pytest.mark.system

PAGE = Path(__file__).parents[2] / "page"
VIEWS = {
    "fleet": "document.querySelectorAll('tbody tr').length && document.querySelector('.ribbon')",
    "model/m": "document.querySelector('.ribbon') && document.body.innerText.includes('Replicas')",
    "tenants": "document.querySelector('meter') && document.body.innerText.includes('limited')",
    "quality": "document.body.innerText.includes('fraud') && document.querySelector('td .quiet')",
    "jobs": "[...document.querySelectorAll('td button')].some(b => b.innerText === 'try again')",
    "events": "document.querySelectorAll('.events li').length > 2",
}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Staged]:
    async with staged(tmp_path) as gateway:
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


async def look(tab: Tab, gateway: Staged, view: str) -> None:
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


async def test_a_job_that_failed_for_good_is_tried_again_by_its_button(gateway, tab):
    await look(tab, gateway, "jobs")
    before = len(gateway.others["broken"].received)
    await tab.run("document.querySelector('td button').click()")
    await gateway.until(lambda: len(gateway.others["broken"].received) > before)
    await tab.until("document.querySelector('p[role=status]').innerText.includes('waits again')")


async def test_a_canary_is_rolled_back_by_its_button(gateway, tab):
    await look(tab, gateway, "fleet")
    await tab.run(
        "[...document.querySelectorAll('button')].find(b => b.innerText === 'roll back').click()"
    )
    await tab.until("document.body.innerText.includes('rolled back: ')")
    assert gateway.gateway._runtime.current.trials["try-next"].is_rolled_back


class Other(Harness):
    """Beside the one that is looked at."""

    instance_id = "other"


async def test_a_switch_shows_all_gateways_as_one(
    tmp_path: Path, tab: Tab, axe: str, valkey_server: ValkeyProcess
) -> None:
    config = {"shared_state": {"redis_url": valkey_server.url}}
    for name in "ab":
        (tmp_path / name).mkdir()
    other = Other(tmp_path / "b", warm=[ok()], function=ok(), config=config)
    async with staged(tmp_path / "a", config=config) as gateway, other:
        for _ in range(7):
            await other.infer(b"{}")
        await look(tab, gateway, "fleet")
        await tab.until("document.querySelector('header select')")
        await _show(tab, "all")
        await tab.until("document.body.innerText.includes('Sums of 2 gateway processes')")
        await tab.until("document.querySelector('td .bad')?.innerText.includes('differs')")
        await tab.run(f"{axe};0")
        found = await tab.run("axe.run().then(told => told.violations.map(each => each.id))")
        assert found == []
        await tab.run("location.hash = 'tenants'")
        await tab.until(f"({_OF_NOBODY}) === '7'")  # those of the other one, which knows no keys
        await _show(tab, "this")
        await tab.until(f"({_OF_NOBODY}) !== '7'")
        await tab.run("location.hash = 'fleet'")
        await tab.until("!document.body.innerText.includes('Sums of')")
        assert tab.complaints == []


_OF_NOBODY = (
    "[...document.querySelectorAll('table')[0].querySelectorAll('tbody tr')]"
    ".find(row => row.cells[0].innerText === 'nobody')?.cells[4].innerText"
)


async def _show(tab: Tab, which: str) -> None:
    await tab.run(
        "{const choice = document.querySelector('header select');"
        f"choice.value = '{which}'; choice.dispatchEvent(new Event('change', {{bubbles: true}}))}}"
    )


async def test_nothing_is_wider_than_a_narrow_window(gateway, tmp_path):
    async with browsing(tmp_path / "narrow", width=500) as tab:
        for view in VIEWS:
            await look(tab, gateway, view)
            width = await tab.run("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, view


async def test_colours_follow_the_system(gateway, tab, axe):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    await tab.tell("Emulation.setEmulatedMedia", features=dark)
    await look(tab, gateway, "tenants")
    colour = await tab.run("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(13, 17, 23)"
    await tab.run(f"{axe};0")
    found = await tab.run("axe.run().then(told => told.violations.map(each => each.id))")
    assert found == [], "the contrast is enough in the dark, too"


class Thousand(Harness):
    """As many models as may be, each with a function."""

    def _make_config(self) -> dict[str, Any]:
        made = super()._make_config()
        (first,) = made["models"]
        made["models"] += [{**first, "name": f"model-{number}"} for number in range(999)]
        return made


FRAMES = """new Promise(done => {
    let frames = 0; const began = performance.now();
    const next = now => {
        frames += 1;
        document.querySelector('.scrolls').scrollTop += 40;
        if (now - began < 8000) requestAnimationFrame(next);
        else done(1000 * frames / (now - began));
    };
    requestAnimationFrame(next);
})"""


async def test_a_thousand_models_scroll_at_ten_frames_a_second_while_their_numbers_change(
    tmp_path, tab
):
    async def send(gateway: Harness) -> None:
        for number in range(10_000):
            await gateway.infer(b"{}", f"/v2/models/model-{number % 999}/infer")

    async with Thousand(tmp_path, function=ok()) as gateway:
        await tab.tell("Page.navigate", url=f"{gateway.admin}/#fleet")
        await tab.until("document.querySelector('caption')?.innerText === '1000 models'")
        sending = asyncio.create_task(send(gateway))
        frames_per_s = await tab.run(FRAMES)
        sending.cancel()
        rows = await tab.run("document.querySelectorAll('tbody tr').length")
        assert rows < 150, "only rows that can be seen are there"
        assert frames_per_s >= 10
        assert tab.complaints == []
        await tab.run("document.querySelector('.scrolls').scrollTop = 1e9")
        await tab.until("document.querySelector('tbody tr:last-child').ariaRowIndex === '1001'")
