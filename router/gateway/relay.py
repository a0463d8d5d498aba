"""The way of an answer back to the client: which headers are passed on, in which form, how fast."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol, TypeVar

from aiohttp import web
from multidict import CIMultiDict

from router.domain.errors import AttemptError, ClientClosedError
from router.domain.ports import BackendResponse
from router.gateway.head import HOP_BY_HOP, OURS
from router.gateway.responses import ErrorAnswer
from router.upstream.head import encode_lines

Headers = Sequence[tuple[str, str]]
R_co = TypeVar("R_co", covariant=True)

SERVER = ("server", "hybrid-router")
"""Sent with every answer, so that no software versions are told."""
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_SET_BY_US = HOP_BY_HOP | {"content-length", "x-request-id", "server-timing", "server"}


def is_relayed(name: str) -> bool:
    """Whether a header of the backend is passed on; not what another gateway says of itself."""
    lower = name.lower()
    return lower not in _SET_BY_US and not lower.startswith(OURS)


class Outgoing(Protocol[R_co]):
    """Where a request's answer goes; exactly one of these is called, once."""

    def whole(self, status: int, headers: Headers, body: bytes) -> R_co:
        """Send an answer that is here."""
        ...

    def error(self, answer: ErrorAnswer, headers: Headers) -> R_co:
        """Send an error; the connection closes where the request was not read to its end."""
        ...

    async def stream(self, response: BackendResponse, headers: Headers) -> R_co:
        """Pass an answer on as it arrives, at the pace of the slower side.

        Once the head is out nothing can be repeated: if the upstream breaks, so does the
        connection. Raises AttemptError and ClientClosedError.
        """
        ...


class AiohttpReplies:
    """Answers of a request that aiohttp has read; it sends them."""

    def __init__(self, http: web.BaseRequest) -> None:
        self._http = http

    def whole(self, status: int, headers: Headers, body: bytes) -> web.StreamResponse:
        """An answer that is here."""
        return reply_of(status, headers, body)

    def error(self, answer: ErrorAnswer, headers: Headers) -> web.StreamResponse:
        """An error."""
        return error_reply(answer, headers)

    async def stream(self, response: BackendResponse, headers: Headers) -> web.StreamResponse:
        """An answer that comes bit by bit."""
        return await stream(self._http, response, headers)


def reply_of(status: int, headers: Headers, body: bytes) -> web.Response:
    """A whole answer."""
    return web.Response(status=status, headers=CIMultiDict([*headers, SERVER]), body=body)


def error_reply(answer: ErrorAnswer, headers: Headers = ()) -> web.Response:
    """An error; closes the connection where the request was not read to its end."""
    reply = reply_of(answer.status, [*answer.headers, *headers], answer.body)
    if answer.closes:
        reply.force_close()
    return reply


def reply_head(status: int, headers: Headers) -> bytes:
    """Status line and headers as they go on the wire, without the empty line."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in (*headers, SERVER)]
    return encode_lines(lines)


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
