"""Reload and drain while requests are under way."""

import asyncio
from typing import Any

import pytest

from tests.fakes.upstreams import Gate, ok
from tests.integration.harness import INFER, Harness, Reply


async def reload(gateway, config) -> Any:
    await gateway.write(config)
    return await gateway.ask("POST", "/v1/reload")


class Traffic:
    """Requests sent one after the other by some clients until stopped; all replies are kept."""

    def __init__(self, gateway, clients=4) -> None:
        self.gateway = gateway
        self.replies: list[Reply] = []
        self._stopped = False
        self._tasks = [asyncio.create_task(self._send()) for _ in range(clients)]

    async def _send(self) -> None:
        while not self._stopped:
            self.replies.append(await self.gateway.infer())

    async def more(self, number=20) -> None:
        """Wait until so many more have been answered."""
        seen = len(self.replies)
        await self.gateway.until(lambda: len(self.replies) >= seen + number)

    async def stop(self) -> Any:
        self._stopped = True
        await asyncio.gather(*self._tasks)
        return [reply.status for reply in self.replies]


class TestReload:
    async def test_traffic_does_not_notice_a_reload(self, tmp_path):
        async with Harness(tmp_path, warm=[ok(), ok()]) as gateway:
            traffic = Traffic(gateway)
            for attempts in (1, 2, 3, 4):
                await traffic.more()
                reply = await reload(gateway, gateway.changed(attempts=attempts))
                assert reply.status == 200
            await traffic.more()
            statuses = await traffic.stop()
        assert set(statuses) == {200}

    async def test_replicas_can_be_replaced_under_traffic(self, tmp_path):
        async with Harness(tmp_path, warm=[ok(b"old"), ok(b"new")]) as gateway:
            old, new = (upstream.url for upstream in gateway.warm)
            await reload(gateway, gateway.changed(pool={"urls": [old]}))
            await gateway.until(lambda: gateway.pool.ready == 1)
            traffic = Traffic(gateway)
            await traffic.more()
            await reload(gateway, gateway.changed(pool={"urls": [new]}))
            await gateway.until(lambda: gateway.pool.ready == 1)
            await traffic.more()
            statuses = await traffic.stop()
            last = await gateway.infer()
        assert set(statuses) == {200}
        assert last.body == b"new"

    async def test_a_request_under_way_ends_on_the_replica_it_is_on(self, tmp_path):
        gate = Gate(ok(b"old"))
        async with Harness(tmp_path, warm=[gate, ok(b"new")]) as gateway:
            old, new = (upstream.url for upstream in gateway.warm)
            await reload(gateway, gateway.changed(pool={"urls": [old]}))
            await gateway.until(lambda: gateway.pool.ready == 1)
            held = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: gate.waiting == 1)
            assert (await reload(gateway, gateway.changed(pool={"urls": [new]}))).status == 200
            assert (await gateway.infer()).body == b"new"
            gate.opened.set()
            assert (await held).body == b"old"

    async def test_a_new_limit_is_in_force_at_once(self, tmp_path):
        gate = Gate()
        async with Harness(tmp_path, warm=[gate], pool={"concurrency": 4}) as gateway:
            await reload(gateway, gateway.changed(pool={"concurrency": 1}))
            await gateway.until(lambda: gateway.pool.ready == 1)
            held = [asyncio.create_task(gateway.infer()) for _ in range(2)]
            await gateway.until(lambda: len(gateway.pool.queue) == gate.waiting == 1)
            gate.opened.set()
            assert {(await task).status for task in held} == {200}

    async def test_rules_are_in_force_at_once(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
            assert (await gateway.infer()).decision == ("pool", "warm_capacity")
            rule = {"name": "all", "match": {}, "route": "serverless"}
            await reload(gateway, {**gateway.config, "rules": [rule]})
            assert (await gateway.infer()).decision == ("serverless", "rule")

    async def test_what_was_learned_survives(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
            await gateway.infer(x_router_backend="serverless")
            before = await gateway.status()
            await reload(gateway, gateway.changed(attempts=2))
            after = await gateway.status()
        assert after["serverless"] == before["serverless"]
        assert after["serverless"]["calls"] == 1
        assert after["split"] == before["split"]

    @pytest.mark.parametrize(
        ("broken", "told"),
        [
            ("models: [", "router.yaml"),
            ("nonsense: 1\n", "nonsense"),
            ("models:\n  - {name: m, slo: {latency_ms: -5}}\n", "latency_ms"),
        ],
        ids=["not YAML", "an unknown key", "a value out of range"],
    )
    async def test_a_bad_file_changes_nothing_and_is_reported(self, tmp_path, broken, told):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            before = (await gateway.ask("GET", "/v1/status")).json()["config"]
            reply = await reload(gateway, broken)
            after = (await gateway.ask("GET", "/v1/status")).json()["config"]
            metrics = (await gateway.ask("GET", "/metrics")).body.decode()
            served = await gateway.infer()
            good = await reload(gateway, gateway.config)
            healed = (await gateway.ask("GET", "/v1/status")).json()["config"]
        assert reply.status == 422
        assert told in " ".join(reply.json()["errors"])
        assert after["hash"] == before["hash"]
        assert told in after["last_error"]
        assert 'router_config_reload_total{result="failed"} 1.0' in metrics
        assert "router_config_last_reload_successful 0.0" in metrics
        assert served.status == 200
        assert (good.status, healed["last_error"]) == (200, None)

    async def test_an_edited_file_is_noticed_without_being_asked(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            before = gateway.gateway._runtime.current
            await gateway.write(gateway.changed(attempts=2))
            await gateway.until(lambda: gateway.gateway._runtime.current is not before)
            assert gateway.gateway._runtime.current.models["m"].settings.attempts == 2

    async def test_a_model_that_is_taken_out_is_unknown_from_then_on(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            config = gateway.changed()
            config["models"][0]["name"] = "other"
            await reload(gateway, config)
            assert (await gateway.infer()).status == 404
            metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'model="m"' not in metrics


POST = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer, in lower case."""
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return head + await reader.readexactly(length)


class TestDrain:
    async def test_what_was_accepted_is_answered_and_nothing_new_is_taken(self, tmp_path):
        gate = Gate(ok(b"last"))
        async with Harness(tmp_path, warm=[gate]) as gateway:
            held = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: gate.waiting == 1)
            gateway.begin_to_stop()
            await gateway.until(lambda: gateway.gateway._data.is_draining)
            await self.refused(gateway)
            assert not gateway._running.done()
            gate.opened.set()
            reply = await held
            assert (reply.status, reply.body) == (200, b"last")
            assert reply.headers["connection"] == "close"
            await gateway.stop()

    async def refused(self, gateway) -> None:
        """New connections are turned away as soon as the listener has closed."""
        async with asyncio.timeout(5):
            while True:
                try:
                    _, writer = await gateway.connect()
                except ConnectionRefusedError:
                    return
                writer.transport.abort()
                await asyncio.sleep(0.005)

    async def test_requests_that_do_not_end_are_cut_off_in_time(self, tmp_path):
        gate = Gate()
        server = {"drain_timeout": "100ms"}
        async with Harness(tmp_path, warm=[gate], server=server) as gateway:
            _, writer = await gateway.connect()
            head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            writer.write(head.encode() + b"2\r\n{}\r\n0\r\n\r\n")
            await gateway.until(lambda: gate.waiting == 1)
            async with asyncio.timeout(5):
                await gateway.stop()
            assert gate.cancelled == 1

    async def test_idle_connections_do_not_hold_it_up(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            await gateway.infer()
            await gateway.connect()
            async with asyncio.timeout(5):
                await gateway.stop()

    @pytest.mark.parametrize("fast", [False, True], ids=["ordinary", "fast"])
    async def test_connections_close_as_soon_as_they_have_nothing_to_do(self, tmp_path, fast):
        gate = Gate()
        async with Harness(tmp_path, warm=[gate], server={"fast_path": fast}) as gateway:
            gate.opened.set()
            idle, begun, busy = [await gateway.connect() for _ in range(3)]
            for reader, writer in (idle, begun, busy):
                writer.write(POST)
                assert b" 200 " in await answer(reader)
            gate.opened.clear()
            begun[1].write(POST[:30])
            busy[1].write(POST)
            await gateway.until(lambda: gate.waiting == 1)  # so the other's bytes are here, too
            gateway.begin_to_stop()
            async with asyncio.timeout(5):
                assert await idle[0].read() == b"", "while others are still served"
                gate.opened.set()
                begun[1].write(POST[30:])
                for reader, _ in (busy, begun):
                    assert b"connection: close" in await answer(reader)
                    assert await reader.read() == b""
                await gateway.stop()

    async def test_a_request_that_has_begun_is_served_on_the_fast_path_and_closes(self, tmp_path):
        gate = Gate()
        async with Harness(tmp_path, warm=[gate]) as gateway:
            reader, writer = await gateway.connect()
            writer.write(POST)
            await gateway.until(lambda: gate.waiting == 1)
            await gateway.ask("POST", "/v1/drain")
            gate.opened.set()
            assert b"connection: close" in await answer(reader)
            async with asyncio.timeout(5):
                assert await reader.read() == b""

    async def test_asked_to_drain_it_leaves_rotation_but_serves_on(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            assert (await gateway.ask("GET", "/readyz")).status == 200
            reply = await gateway.ask("POST", "/v1/drain")
            assert reply.json() == {"draining": True, "in_flight": 0}
            assert (await gateway.ask("GET", "/readyz")).status == 503
            assert (await gateway.ask("GET", "/healthz")).status == 200
            assert (await gateway.request("GET", "/v2/health/ready")).status == 503
            served = await gateway.infer()
        assert (served.status, served.headers["connection"]) == (200, "close")


async def test_a_port_that_is_taken_is_an_error_at_once(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        taken = gateway.url.removeprefix("http://")
        second = Harness(tmp_path, warm=[ok()], server={"listen": taken})
        with pytest.raises(OSError, match="address already in use"):
            await second.__aenter__()
