"""Reads request bodies up to a limit. Never buffers more than the limit and one read."""

from aiohttp import web


class BodyTooLargeError(Exception):
    """The body is, or says it is, over the limit."""


class BodyLostError(Exception):
    """The sender went away before the end of the body."""


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """Return the whole body.

    Raises BodyTooLargeError, where it can before reading anything, and BodyLostError.
    """
    if (request.content_length or 0) > limit_bytes:
        raise BodyTooLargeError
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > limit_bytes:
                raise BodyTooLargeError
    except ConnectionError as error:
        raise BodyLostError from error
    return bytes(body)
