"""Which addresses stand behind the configured URLs: those of a name are looked up again and again.

A name that cannot be looked up keeps the addresses it had. Says nothing about their health.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

from router.upstream.address import Address

_log = logging.getLogger(__name__)

_FORGET_AFTER = 3
"""An address is gone once so many answers in a row lack it: some servers give a part of all."""
_WITHIN_S = 10.0
_NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)
MAX_ADDRESSES = 1000
"""Of one name; more are left out."""

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


async def look_up(host: str, port: int) -> Sequence[str]:
    """The name's IPv4 addresses, or if it has none its IPv6 ones: both would be replicas twice.

    None where there is no such name: so it is with a service without replicas. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_WITHIN_S):  # its TimeoutError is an OSError
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            return ()
        raise
    by_family = {
        family: sorted({str(where[0]) for kind, *_, where in found if kind == family})
        for family in (socket.AF_INET, socket.AF_INET6)
    }
    return by_family[socket.AF_INET] or by_family[socket.AF_INET6]


def is_name(address: Address) -> bool:
    """Whether the address has a name that may stand for others."""
    if address.unix_path is not None:
        return False
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return True
    return False


class Names:
    """The addresses of a list of URLs, as far as they are known."""

    def __init__(self, urls: Iterable[Address], look_up: Lookup = look_up) -> None:
        urls = tuple(urls)
        self._fixed = tuple(url for url in urls if not is_name(url))
        self._names = tuple(url for url in urls if is_name(url))
        self._look_up = look_up
        # Answers in a row that lacked the address, by name.
        self._missed: dict[Address, dict[str, int]] = {name: {} for name in self._names}

    @property
    def are_any(self) -> bool:
        """Whether there is anything to look up."""
        return bool(self._names)

    @property
    def known(self) -> list[Address]:
        """All addresses, in the order of their URLs."""
        found = (name.at(ip) for name in self._names for ip in self._missed[name])
        return [*self._fixed, *found]

    async def refresh(self) -> bool:
        """Look all names up; returns whether each could be."""
        done = await asyncio.gather(*(self._refresh(name) for name in self._names))
        return all(done)

    async def _refresh(self, name: Address) -> bool:
        known = self._missed[name]
        try:
            found = (await self._look_up(name.host, name.port))[:MAX_ADDRESSES]
        except OSError as error:
            _log.warning("%s cannot be looked up (%s); its addresses stay", name.host, error)
            return False
        for ip in known:
            known[ip] += 1
        known.update(dict.fromkeys(found, 0))
        for ip in [ip for ip, missed in known.items() if missed >= _FORGET_AFTER]:
            del known[ip]
        return True
