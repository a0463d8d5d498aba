"""The way of an answer back to the client: which headers are passed on, in which form, how fast."""

from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web
from multidict import CIMultiDict

from router.domain.errors import AttemptError, ClientClosedError
from router.domain.ports import BackendResponse
from router.gateway.head import HOP_BY_HOP, OURS
from router.gateway.responses import ErrorAnswer

Headers = Sequence[tuple[str, str]]

SERVER = ("server", "hybrid-router")
"""Sent with every answer, so that no software versions are told."""
_SET_BY_US = HOP_BY_HOP | {"content-length", "x-request-id", "server-timing", "server"}


def is_relayed(name: str) -> bool:
    """Whether a header of the backend is passed on; not what another gateway says of itself."""
    lower = name.lower()
    return lower not in _SET_BY_US and not lower.startswith(OURS)


def reply_of(status: int, headers: Headers, body: bytes) -> web.Response:
    """A whole answer."""
    return web.Response(status=status, headers=CIMultiDict([*headers, SERVER]), body=body)


def error_reply(answer: ErrorAnswer, headers: Headers = ()) -> web.Response:
    """An error; closes the connection where the request was not read to its end."""
    reply = reply_of(answer.status, [*answer.headers, *headers], answer.body)
    if answer.closes:
        reply.force_close()
    return reply


def error_bytes(answer: ErrorAnswer, own_lines: bytes) -> bytes:
    """An error as it goes on the wire, with whole header lines of ours."""
    fields = [*answer.headers, SERVER, ("content-length", str(len(answer.body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    start = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n".encode()
    return b"".join((start, lines, own_lines, b"\r\n", answer.body))


async def stream(
    http: web.BaseRequest, response: BackendResponse, headers: Headers
) -> web.StreamResponse:
    """Pass the answer on as it arrives, at the pace of the slower side.

    Once the head is out nothing can be repeated: if the upstream breaks, so does the connection.
    """
    assert response.rest is not None  # noqa: S101
    reply = web.StreamResponse(status=response.status, headers=CIMultiDict([*headers, SERVER]))
    length = {name.lower(): value for name, value in response.headers}.get("content-length")
    if length is not None:
        reply.content_length = int(length)
    try:
        await reply.prepare(http)
        if response.body:
            await reply.write(response.body)
        async for chunk in response.rest:
            await reply.write(chunk)
        await reply.write_eof()
    except AttemptError:
        _abort(http)
        raise
    except ConnectionError as error:
        raise ClientClosedError("the client went away during the answer") from error
    return reply


def _abort(http: web.BaseRequest) -> None:
    if http.transport is not None:
        http.transport.abort()
