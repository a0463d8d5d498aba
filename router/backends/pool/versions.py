"""Which versions of its model a replica has, asked with the metadata call of OIP.

A replica that does not say so is taken to have any: its own answer is the truth then.
"""

import msgspec

from router.domain.errors import AttemptError
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient
from router.upstream.response import UpstreamResponse


class _Metadata(msgspec.Struct):
    versions: list[str]


async def versions_of(
    upstream: UpstreamClient, address: Address, path: str, timeout_s: float
) -> frozenset[str] | None:
    """The versions that the replica names; None if it names none, or does not answer in time."""
    call = Call(method="GET", target=path, is_idempotent=True)
    try:
        response = await upstream.send(address, call, timeout_s=timeout_s)
    except AttemptError:
        return None
    await response.aclose()
    return _named(response) if response.status == 200 and response.rest is None else None


def _named(response: UpstreamResponse) -> frozenset[str] | None:
    try:
        named = msgspec.json.decode(response.body, type=_Metadata).versions
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return frozenset(named) or None
