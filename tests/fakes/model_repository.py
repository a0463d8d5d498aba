"""A replica with a model repository, as Triton's in explicit mode: what is loaded is served."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

from tests.fakes.upstreams import Answer, Behaviour, Gate, Received, ok


class Repository:
    """A behaviour for an `Upstream`; `models` maps each model to how it answers."""

    def __init__(self, models: dict[str, Behaviour], loaded: Sequence[str] = ()) -> None:
        self.models = models
        self.loaded = set(loaded)
        self.changes: list[str] = []
        self.refused: set[str] = set()
        self.served: Counter[str] = Counter()
        self.loads = Gate(ok(b"{}"))
        self.loads.opened.set()

    async def __call__(self, received: Received) -> Answer:
        _, version, kind, *rest = received.target.split("/")
        assert version == "v2"
        if kind == "repository":
            return await self._repository(received, rest)
        name = rest[0]
        if name not in self.loaded:
            return Answer(400, b'{"error": "not loaded"}')
        self.served[name] += 1
        return await self.models[name](received)

    async def _repository(self, received: Received, rest: list[str]) -> Answer:
        if rest == ["index"]:
            states = {name: "READY" if name in self.loaded else "" for name in self.models}
            index = [
                {"name": name, "version": "1", "state": state} for name, state in states.items()
            ]
            return Answer(200, json.dumps(index).encode())
        _, name, what = rest
        if name in self.refused:
            return Answer(400, b'{"error": "cannot be loaded"}')
        await self.loads(received)
        self.changes.append(f"{what} {name}")
        if what == "load":
            self.loaded.add(name)
        else:
            self.loaded.discard(name)
        await asyncio.sleep(0)
        return Answer(200, b"{}")
