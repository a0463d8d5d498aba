"""For whom a request is made, as backends are told it: X-Forwarded-For, -Proto and their like.

Where `server.forwarded` is `make`, what a client says of that is dropped, and what the gateway sees
of its connection takes its place.
"""

import asyncio

from router.settings.server import Forwarded, ServerSettings

NAMES = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
    }
)
"""Headers (lower case) that servers believe to tell them about the client."""


def is_made(server: ServerSettings) -> bool:
    """Whether the gateway makes them."""
    return server.forwarded is Forwarded.MAKE


def seen_of(transport: asyncio.BaseTransport | None) -> list[tuple[str, str]]:
    """What is seen of the client at the other end."""
    if transport is None:
        return []
    address = transport.get_extra_info("peername")
    scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
    client = [("x-forwarded-for", str(address[0]))] if address else []
    return [*client, ("x-forwarded-proto", scheme)]
