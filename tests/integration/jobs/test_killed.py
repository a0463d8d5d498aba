"""What a gateway owes when it is killed: answers to events, and who is told."""

import asyncio
from pathlib import Path

import aiohttp
from standardwebhooks import Webhook

from tests.fakes.upstreams import Gate, Upstream, running
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.harness import INFER
from tests.integration.jobs.receiver import LOOPBACK, SECRET, receiving

EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t",
         "content-type": "application/json"}  # fmt: skip


async def test_a_killed_gateway_still_tells_and_answers_once_it_is_back(tmp_path: Path):
    folder, gate = tmp_path / "gateway", Gate()
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    model = Upstream(gate)
    async with receiving() as receiver, running(model):
        gateway = GatewayProcess(folder, {
            "jobs": {"directory": "jobs", "lease": "1s",
                     "deliveries": {**LOOPBACK, "secret_file": "secret"}},
            "triggers": [{"name": "any", "model": "m", "window": "1h",
                          "sink": f"{receiver.url}/sink"}],
            "models": [{"name": "m", "slo": {"latency_ms": 5000}, "pool": {
                "kind": "static", "urls": [model.url], "concurrency": 4}}],
        })  # fmt: skip
        await asyncio.to_thread(gateway.start)
        try:
            called = {"prefer": "respond-async", "x-router-callback-url": f"{receiver.url}/hook"}
            async with aiohttp.ClientSession() as session:
                for path, headers in ((INFER, called), ("/v1/events", EVENT)):
                    url = gateway.url + path
                    async with session.post(url, data=b"{}", headers=headers) as taken:
                        assert taken.status == 202, await taken.text()
            async with asyncio.timeout(20):
                while gate.waiting < 2:
                    await asyncio.sleep(0.01)
            assert gateway.process is not None
            gateway.process.kill()
            await asyncio.to_thread(gateway.wait)
            gate.opened.set()
            await asyncio.to_thread(gateway.start)
            got = {one.target: one for one in (await receiver.message(), await receiver.message(1))}
        finally:
            await asyncio.to_thread(gateway.ensure_gone)
    assert set(got) == {"/hook", "/sink"}
    assert Webhook(SECRET).verify(got["/hook"].body, dict(got["/hook"].headers))
    assert got["/sink"].headers["ce-causeid"] == "1"
