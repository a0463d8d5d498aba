"""Where messages may go: which URLs, and which addresses behind their names.

The host is judged when a message is accepted and again before it is sent; the address when it is
connected to, so that it is that very one: a name that resolves otherwise a moment later gains
nothing.
"""

import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from yarl import URL

from router.domain.errors import InvalidRequestError
from router.settings.deliveries import DeliveriesSettings, Network

CALLBACK_HEADER = "x-router-callback-url"
_MAX_URL_CHARS = 2048
_NAT64 = IPv6Network("64:ff9b::/96")
Address = IPv4Address | IPv6Address


class NotAllowedError(OSError):
    """The address behind a name is not one that messages may go to."""


def host_of(url: str, settings: DeliveriesSettings, *, by_operator: bool = False) -> str:
    """The host and port of a URL that messages may go to. Raises InvalidRequestError.

    One that the operator has configured needs not be of the `hosts`. The URL is read as the client
    that will call it reads it.
    """
    schemes = ("https", "http") if settings.allow_http else ("https",)
    parsed = _parsed(url)
    if parsed is None or not parsed.host or parsed.scheme not in schemes or parsed.user is not None:
        raise InvalidRequestError(
            f"the callback URL must be {' or '.join(schemes)}, with a host, of at most"
            f" {_MAX_URL_CHARS} characters and without a user or password"
        )
    name = parsed.host.lower().rstrip(".")
    if not by_operator and not any(fnmatchcase(name, glob.lower()) for glob in settings.hosts):
        raise InvalidRequestError(f"host {name[:200]!r} is not one that may be called back")
    return f"{name}:{parsed.port}"


def _parsed(url: str) -> URL | None:
    if len(url) > _MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        return URL(url)
    except ValueError:
        return None


def callback_of(asked: str | None, settings: DeliveriesSettings) -> str:
    """Whom a client wants to be told, empty for nobody. Raises InvalidRequestError."""
    if asked is None:
        return ""
    if not settings.hosts:
        raise InvalidRequestError(
            f"{CALLBACK_HEADER}: nobody is called back here (jobs.deliveries.hosts is empty)"
        )
    host_of(asked, settings)
    return asked


def may_go_to(address: Address, private: Sequence[Network]) -> bool:
    """Whether an address is public, or in a network that is configured.

    An IPv6 address that only carries an IPv4 one is judged as that.
    """
    inner = _inner(address)
    if any(inner in network for network in private):
        return True
    return inner.is_global and not inner.is_multicast and not inner.is_reserved


def _inner(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    teredo = address.teredo[1] if address.teredo is not None else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


class Guard:
    """Makes the sockets of a client, for addresses that messages may go to and for no others."""

    def __init__(self, private: Sequence[Network]) -> None:
        self._private = private

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for an entry of `getaddrinfo`. Raises NotAllowedError."""
        family, kind, protocol, _, where = info
        address = ip_address(str(where[0]).partition("%")[0])
        if not may_go_to(address, self._private):
            raise NotAllowedError("its address is not one that may be called")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made
