"""Asks a replica which models it has in memory, and to load or unload one.

Speaks the model repository extension of OIP, as the bundled workers, Triton (with
`--model-control-mode=explicit`) and MLServer have it. Decides nothing.
"""

import asyncio
from urllib.parse import quote

import msgspec

from router.domain.errors import AttemptError
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient
from router.upstream.response import UpstreamResponse

_TOLD_BYTES = 200
_MAX_BODY_BYTES = 4 << 20
_HAS_NONE = frozenset({404, 405, 501})


class RepositoryError(Exception):
    """A replica did not do as it was asked; the message says why."""


class _Entry(msgspec.Struct):
    name: str
    state: str = ""


_INDEX = msgspec.json.Decoder(list[_Entry])


class ModelRepository:
    """The replicas' repositories. `answer_s` bounds a question, `load_s` a load or unload."""

    def __init__(self, upstream: UpstreamClient, answer_s: float, load_s: float) -> None:
        self._upstream = upstream
        self._answer_s = answer_s
        self._load_s = load_s

    async def loaded(self, address: Address) -> frozenset[str] | None:
        """The models that are ready there; None if it has no repository to ask.

        Raises RepositoryError.
        """
        status, body = await self._post(address, "/v2/repository/index", self._answer_s)
        if status in _HAS_NONE:
            return None
        if status != 200:
            raise RepositoryError(f"its index answers {status}")
        try:
            entries = _INDEX.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RepositoryError(f"its index cannot be read: {error}") from error
        return frozenset(entry.name for entry in entries if entry.state == "READY")

    async def load(self, address: Address, model: str) -> None:
        """Return once the model is loaded there. Raises RepositoryError."""
        await self._change(address, model, "load")

    async def unload(self, address: Address, model: str) -> None:
        """Have the model forgotten there. Raises RepositoryError."""
        await self._change(address, model, "unload")

    async def _change(self, address: Address, model: str, what: str) -> None:
        path = f"/v2/repository/models/{quote(model, safe='')}/{what}"
        status, body = await self._post(address, path, self._load_s)
        if status >= 300:
            told = body[:_TOLD_BYTES].decode(errors="replace")
            raise RepositoryError(f"{what} answers {status}: {told}")

    async def _post(self, address: Address, path: str, timeout_s: float) -> tuple[int, bytes]:
        headers = (("content-type", "application/json"),)
        call = Call(
            method="POST", target=path, headers=headers, body=b"{}", body_bytes=2,
            is_idempotent=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._upstream.send(address, call, timeout_s=timeout_s)
                return response.status, await _whole(response)
        except (AttemptError, TimeoutError) as error:
            raise RepositoryError(str(error) or "it does not answer in time") from error


async def _whole(response: UpstreamResponse) -> bytes:
    body = bytearray(response.body)
    try:
        if response.rest is not None:
            async for chunk in response.rest:
                body += chunk
                if len(body) > _MAX_BODY_BYTES:
                    raise RepositoryError(f"it answers more than {_MAX_BODY_BYTES} bytes")
    finally:
        await response.aclose()
    return bytes(body)
