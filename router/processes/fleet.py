"""How a parent asks its gateway processes: HTTP on each one's Unix socket, all at the same time.

A process that does not answer in time is left out, and says so in no answer of the others.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from router.gateway.admin.events import EventsDocument
from router.telemetry.events import Event
from router.telemetry.exposition import Snapshot

_WITHIN_S = 2.0
_RELOAD_WITHIN_S = 30.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a process answered."""

    status: int
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON; empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


async def ask_all(
    sockets: Mapping[int, Path], method: str, path: str, body: bytes | None = None
) -> dict[int, Reply]:
    """The answers by number; those that did not answer are missing."""
    replies = await asyncio.gather(
        *(ask_one(socket, method, path, body) for socket in sockets.values())
    )
    found = zip(sockets, replies, strict=True)
    return {number: reply for number, reply in found if reply is not None}


async def ask_one(
    socket: Path, method: str, path: str, body: bytes | None = None, within_s: float | None = None
) -> Reply | None:
    """One process's answer, None if there is none in time."""
    if within_s is None:
        within_s = _RELOAD_WITHIN_S if path == "/v1/reload" else _WITHIN_S
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(socket)),
                timeout=aiohttp.ClientTimeout(total=within_s),
            ) as session,
            session.request(method, f"http://process{path}", data=body) as response,
        ):
            return Reply(response.status, await response.read())
    except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
        _log.info("a gateway process did not answer %s: %s", path, type(error).__name__)
        return None


def events_of(replies: Mapping[int, Reply]) -> list[Sequence[Event]]:
    """The events that processes have told."""
    return [
        msgspec.json.decode(reply.body, type=EventsDocument).events
        for reply in replies.values()
        if reply.status == 200
    ]


def snapshots_of(replies: Mapping[int, Reply]) -> dict[int, Snapshot]:
    """The series that processes have told."""
    return {
        number: msgspec.json.decode(reply.body, type=Snapshot)
        for number, reply in replies.items()
        if reply.status == 200
    }
