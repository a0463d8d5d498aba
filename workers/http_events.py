"""HTTP events of AWS's payload format 2.0: one event in, one response out, synchronously.

Decides how an event maps to a request and back; answering is `direct`'s.
"""

import base64
import binascii
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from workers.direct import answer, guarded
from workers.protocol import InvalidRequest, Reply
from workers.service import Catalog

# What a compressed body may inflate to; the event itself is at most 6 MB.
INFLATED_LIMIT_BYTES: Final = 64 * 1024 * 1024


def serve(catalog: Catalog, event: Mapping[str, Any]) -> dict[str, Any]:
    """The response to one event; never raises for what a client sent."""
    return _to_event(guarded(partial(_reply, catalog, event)))


def _reply(catalog: Catalog, event: Mapping[str, Any]) -> Reply:
    verb, path = _request_line(event)
    headers = {str(k).lower(): str(v) for k, v in (event.get("headers") or {}).items()}
    return answer(catalog, verb, path, headers, partial(_body, event), INFLATED_LIMIT_BYTES)


def _request_line(event: Mapping[str, Any]) -> tuple[str, str]:
    try:
        return str(event["requestContext"]["http"]["method"]), str(event["rawPath"])
    except (KeyError, TypeError) as error:
        raise InvalidRequest(
            "not an HTTP event of payload format 2.0: rawPath and requestContext.http.method "
            "are needed"
        ) from error


def _body(event: Mapping[str, Any]) -> bytes:
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return str(body).encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidRequest(f"the event's body is not valid base64: {error}") from error


def _to_event(reply: Reply) -> dict[str, Any]:
    try:
        body, is_base64 = reply.body.decode(), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(reply.body).decode("ascii"), True
    return {
        "statusCode": reply.status,
        "headers": dict(reply.headers),
        "body": body,
        "isBase64Encoded": is_base64,
    }
