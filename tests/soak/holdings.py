"""What a gateway process holds on to while it is idle: what grows there is a leak."""

import asyncio
from dataclasses import dataclass

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.end_to_end.gateway import GatewayProcess

_IDLE_WITHIN_S = 30.0
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Holdings:
    """Taken when nothing is in flight. `slots` are those still held, which must be none."""

    rss_mib: float
    descriptors: int
    sockets: int
    tasks: int
    slots: int

    def leaks(self, before: "Holdings") -> list[str]:
        """What there is more of than before, beyond what an idle gateway's own work explains."""
        bounds = {
            "rss_mib": before.rss_mib * 1.1 + 8,
            "descriptors": before.descriptors + 16,
            "sockets": before.sockets + 16,
            "tasks": before.tasks + 8,
            "slots": 0,
        }
        return [
            f"{name}: {getattr(before, name)} -> {getattr(self, name)}, bound {bound:g}"
            for name, bound in bounds.items()
            if getattr(self, name) > bound
        ]


async def holdings(gateway: GatewayProcess) -> Holdings:
    """Once nothing is in flight, or after a while what then still is."""
    assert gateway.process is not None
    metrics = await _idle(gateway)
    process = psutil.Process(gateway.process.pid)
    with process.oneshot():
        return Holdings(
            rss_mib=round(process.memory_info().rss / _MIB, 1),
            descriptors=process.num_fds(),
            sockets=len(process.net_connections(kind="inet")),
            tasks=int(metrics["router_tasks"]),
            slots=int(metrics["router_in_flight"] + metrics["router_queue_depth"]),
        )


async def _idle(gateway: GatewayProcess) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _IDLE_WITHIN_S
    while True:
        found = _sums(await gateway.metrics())
        is_idle = not (
            found["router_in_flight"]
            or found["router_queue_depth"]
            or found["router_client_connections_open"]
        )
        if is_idle or loop.time() > give_up_at:
            return found
        await asyncio.sleep(0.1)


def _sums(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
