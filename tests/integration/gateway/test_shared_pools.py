"""Models that share replicas: who is loaded where, whose turn it is, what a noisy one may do."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fakes.model_repository import Repository
from tests.fakes.upstreams import Answer, Behaviour, Gate, Received, Upstream, ok
from tests.integration.harness import Harness, Reply


class Shared(Harness):
    """Models on static replicas that they share; `sharing` is by model, `pool` the pool's."""

    def __init__(
        self,
        folder: Path,
        replicas: Sequence[Behaviour],
        sharing: dict[str, dict[str, Any]],
        **settings: Any,
    ) -> None:
        super().__init__(folder, [Upstream(replica) for replica in replicas], **settings)
        self._sharing = sharing

    def _make_config(self) -> dict[str, Any]:
        config = super()._make_config()
        pool = {**config["models"][0]["pool"], **self._settings.get("pool", {})}
        models = [
            {"name": name, "slo": {"latency_ms": 5000}, "pool": "shared", "sharing": found}
            for name, found in self._sharing.items()
        ]
        timing = {"interval": "100ms", "window": "1s"}
        return {**config, "models": models, "pools": {"shared": pool}, "controller": timing}

    async def _until_ready(self) -> None:
        await self.until(lambda: self.group.pool.ready == len(self.warm))

    @property
    def group(self) -> Any:
        return self.gateway._runtime.current.groups["shared"]

    def pool_of(self, model: str) -> Any:
        return self.gateway._runtime.current.models[model].pool

    def places(self, model: str) -> list[Any]:
        return list(self.pool_of(model).endpoints.values())

    async def ask_for(self, model: str) -> Reply:
        return await self.infer(path=f"/v2/models/{model}/infer")


def models(*names: str) -> dict[str, Behaviour]:
    return {name: ok(name.encode()) for name in names}


async def test_a_model_is_loaded_when_it_is_asked_for(tmp_path: Path):
    replica = Repository(models("a", "b"))
    async with Shared(tmp_path, [replica], {"a": {}, "b": {}}) as gateway:
        first = await gateway.ask_for("a")
        assert (first.status, first.body, replica.changes) == (200, b"a", ["load a"])
        again = await gateway.ask_for("a")
        assert (again.status, replica.changes) == (200, ["load a"])
        assert (await gateway.ask_for("b")).body == b"b"
        assert replica.changes == ["load a", "load b"]


async def test_what_a_replica_has_already_is_not_loaded_again(tmp_path: Path):
    replica = Repository(models("a", "b"), loaded=["a", "b"])
    async with Shared(tmp_path, [replica], {"a": {}, "b": {}}) as gateway:
        assert [(await gateway.ask_for(name)).status for name in "ab"] == [200, 200]
    assert replica.changes == []


async def test_a_replica_without_a_repository_serves_what_it_serves(tmp_path: Path):
    async def plain(received: Received) -> Answer:
        return Answer(404) if "repository" in received.target else Answer(200, b"fixed")

    async with Shared(tmp_path, [plain], {"a": {}}) as gateway:
        assert (await gateway.ask_for("a")).body == b"fixed"


async def test_memory_that_is_short_goes_to_the_model_that_is_asked_for(tmp_path: Path):
    replica = Repository(models("a", "b"))
    sharing = {"a": {"memory": "60MiB"}, "b": {"memory": "60MiB"}}
    async with Shared(tmp_path, [replica], sharing, pool={"model_memory": "100MiB"}) as gateway:
        await gateway.ask_for("a")
        assert (await gateway.ask_for("b")).body == b"b"
        assert replica.changes == ["load a", "unload a", "load b"]
        assert gateway.places("a") == []


async def test_a_model_is_drained_before_it_is_unloaded(tmp_path: Path):
    gate = Gate(ok(b"a"))
    replica = Repository({"a": gate, "b": ok(b"b")}, loaded=["a"])
    sharing = {"a": {"memory": "60MiB"}, "b": {"memory": "60MiB"}}
    async with Shared(tmp_path, [replica], sharing, pool={"model_memory": "100MiB"}) as gateway:
        held = asyncio.create_task(gateway.ask_for("a"))
        await gateway.until(lambda: gate.waiting == 1)
        asked = asyncio.create_task(gateway.ask_for("b"))
        await gateway.until(lambda: gateway.places("a")[0].is_draining)
        assert replica.changes == []
        gate.opened.set()
        assert (await held).body == b"a"
        assert (await asked).body == b"b"
        assert replica.changes == ["unload a", "load b"]


async def test_a_model_that_cannot_be_loaded_takes_nothing_from_the_others(tmp_path: Path):
    replica = Repository(models("a", "bad"))
    replica.refused.add("bad")
    queue = {"queue": {"max_wait": "300ms"}}
    async with Shared(tmp_path, [replica], {"a": {}, "bad": {}}, pool=queue) as gateway:
        bad, good = await asyncio.gather(gateway.ask_for("bad"), gateway.ask_for("a"))
        assert (bad.status, good.status) == (503, 200)


async def test_a_noisy_model_cannot_starve_the_others(tmp_path: Path):
    gate = Gate(ok(b"noisy"))
    replica = Repository({"noisy": gate, "quiet": ok(b"quiet")}, loaded=["noisy", "quiet"])
    pool = {"concurrency": 2, "queue": {"max_requests": 300}}
    async with Shared(tmp_path, [replica], {"noisy": {}, "quiet": {}}, pool=pool) as gateway:
        await gateway.until(lambda: bool(gateway.places("noisy") and gateway.places("quiet")))
        noise = [asyncio.create_task(gateway.ask_for("noisy")) for _ in range(100)]
        await gateway.until(lambda: gate.waiting == 2)
        waiting = asyncio.create_task(gateway.ask_for("quiet"))
        await gateway.until(lambda: len(gateway.pool_of("quiet").queue) == 1)
        gate.opened.set()
        assert (await waiting).body == b"quiet"
        assert replica.served["noisy"] <= 6, "it had its turn as soon as slots came free"
        await asyncio.gather(*noise)


async def test_one_model_never_has_more_than_its_share_of_a_replica(tmp_path: Path):
    gate = Gate(ok(b"noisy"))
    replica = Repository({"noisy": gate, "quiet": ok(b"quiet")}, loaded=["noisy", "quiet"])
    sharing = {"noisy": {"max_concurrency": 3}, "quiet": {}}
    async with Shared(tmp_path, [replica], sharing) as gateway:
        await gateway.until(lambda: bool(gateway.places("noisy") and gateway.places("quiet")))
        noise = [asyncio.create_task(gateway.ask_for("noisy")) for _ in range(10)]
        await gateway.until(lambda: gate.waiting == 3)
        assert (await gateway.ask_for("quiet")).body == b"quiet", "while all of the noise waits"
        assert gate.waiting == 3
        gate.opened.set()
        assert {(await one).status for one in noise} == {200}


async def test_slots_are_those_of_the_replica_however_many_models_there_are(tmp_path: Path):
    gate = Gate(ok())
    names = [f"m{number}" for number in range(8)]
    replica = Repository(dict.fromkeys(names, gate), loaded=names)
    async with Shared(tmp_path, [replica], {name: {} for name in names}) as gateway:
        await gateway.until(lambda: all(gateway.places(name) for name in names))
        asked = [asyncio.create_task(gateway.ask_for(name)) for name in names]
        await gateway.until(lambda: gate.waiting == 4)
        (host,) = gateway.group.pool.endpoints.values()
        assert (host.in_flight, sum(replica.served.values())) == (4, 4)
        gate.opened.set()
        assert {(await one).status for one in asked} == {200}
        await gateway.until(lambda: host.in_flight == 0)


async def test_replicas_queues_and_places_survive_a_reload(tmp_path: Path):
    replica = Repository(models("a", "b", "c"))
    async with Shared(tmp_path, [replica], {"a": {}, "b": {}}) as gateway:
        await gateway.ask_for("a")
        before, group = gateway.places("a"), gateway.group.members
        added = {"name": "c", "slo": {"latency_ms": 5000}, "pool": "shared"}
        models_ = [gateway.config["models"][0], added]
        await gateway.write({**gateway.config, "models": models_})
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        assert gateway.places("a") == before
        assert gateway.group.members is group
        assert (await gateway.ask_for("b")).status == 404
        assert (await gateway.ask_for("c")).body == b"c"
        assert replica.changes == ["load a", "load c"]


async def test_a_replica_that_comes_back_is_asked_what_it_has(tmp_path: Path):
    replica = Repository(models("a"))
    async with Shared(tmp_path, [replica], {"a": {}}) as gateway:
        await gateway.ask_for("a")
        gateway.warm[0].is_ready = False
        await gateway.until(lambda: not gateway.places("a"))
        replica.loaded.clear()
        gateway.warm[0].is_ready = True
        assert (await gateway.ask_for("a")).status == 200
        assert replica.changes == ["load a", "load a"]
