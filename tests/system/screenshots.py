"""Pictures of the page's views with traffic: `python -m tests.system.screenshots docs/page`."""

import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.system.browser import browsing
from tests.system.staged import Staged, send, staged

VIEWS = {
    "fleet": 1400, "model/m": 1650, "tenants": 700, "quality": 1000, "jobs": 700, "events": 800,
}  # fmt: skip
_ROUNDS = 45


async def _take(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        async with staged(Path(scratch)) as gateway:
            sending = asyncio.create_task(_live(gateway))
            await asyncio.sleep(_ROUNDS)  # for lines that can be seen
            for view, height in VIEWS.items():
                browser = Path(scratch) / view.replace("/", "-")
                async with browsing(browser, width=1360, height=height) as tab:
                    await tab.tell("Page.navigate", url=f"{gateway.admin}/#{view}")
                    await asyncio.sleep(6)  # rates need some seconds
                    await tab.screenshot(folder / f"{view.split('/')[0]}.png")
            sending.cancel()


async def _live(gateway: Staged) -> None:
    """Traffic that changes: numbers drift, a replica fails, a key is changed."""
    began = asyncio.get_running_loop().time()
    while True:
        passed_s = asyncio.get_running_loop().time() - began
        mean = 0.5 if passed_s < _ROUNDS / 2 else 2.5
        await send(gateway, random.randint(3, 9), mean)
        if passed_s > _ROUNDS / 3 and "slo" not in vars(gateway):
            vars(gateway)["slo"] = True
            await gateway.write(gateway.changed(slo={"latency_ms": 250}))
            await gateway.ask("POST", "/v1/reload")
        await asyncio.sleep(0.3)


if __name__ == "__main__":
    os.environ |= {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "made-up"}
    asyncio.run(_take(Path(sys.argv[1])))
