"""Notices a gateway process that hangs: alive to the system, but answering nobody.

The kernel goes on giving it its share of the new connections, and they wait in vain: so it is asked
often, and not for long. What follows from the answers is the child's to decide.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from router.domain.clock import Sleep
from router.processes.children import Child
from router.processes.fleet import ask_one

_EVERY_S = 0.5
_WITHIN_S = 1.0


async def listen_to(children: Sequence[Child], sockets: Mapping[int, Path], sleep: Sleep) -> None:
    """Ask every process that is ready whether it lives, until cancelled; `sockets` by number."""
    while True:
        asked = [child for child in children if child.is_ready.is_set()]
        replies = await asyncio.gather(
            *(
                ask_one(sockets[child.number], "GET", "/healthz", within_s=_WITHIN_S)
                for child in asked
            )
        )
        for child, reply in zip(asked, replies, strict=True):
            child.heard(has_answered=reply is not None)
        await sleep(_EVERY_S)
