"""HTTP request <-> function event, payload format 2.0, bodies byte-exact. Pure."""

from base64 import b64decode, b64encode
from typing import Any

import msgspec

from router.domain.errors import ModelFailedError
from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest

_UNSUPPORTED_IN_ANSWER = {"content-length", "connection", "transfer-encoding", "keep-alive"}


def encode_event(request: InferenceRequest, body: bytes) -> bytes:
    """The event's JSON. Text goes as text unless base64 is shorter; the rest as base64."""
    head = msgspec.json.encode(
        {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": request.path,
            "rawQueryString": request.query,
            "headers": {**request.headers, "x-request-id": request.request_id},
            "requestContext": {
                "requestId": request.request_id,
                "http": {
                    "method": request.method,
                    "path": request.path,
                    "protocol": "HTTP/1.1",
                },
            },
        }
    )
    text = _as_json_text(body) if request.is_text else None
    # A body full of quotes may grow more by escaping than by base64.
    if text is not None and len(text) <= 4 * len(body) // 3 + 64:
        return b'%b,"isBase64Encoded":false,"body":%b}' % (head[:-1], text)
    return b'%b,"isBase64Encoded":true,"body":"%b"}' % (head[:-1], b64encode(body))


def _as_json_text(body: bytes) -> bytes | None:
    try:
        return msgspec.json.encode(body.decode())
    except UnicodeDecodeError:
        return None


class _Answer(msgspec.Struct):
    statusCode: int  # noqa: N815  wire names
    headers: dict[str, Any] = {}
    body: str = ""
    isBase64Encoded: bool = False  # noqa: N815
    cookies: list[str] = []


def decode_answer(payload: bytes) -> BackendResponse:
    """The function's HTTP answer. Raises ModelFailedError if it is not one."""
    try:
        answer = msgspec.json.decode(payload, type=_Answer)
        # Strictly: what is not base64 would otherwise be dropped, and a cut answer passed on.
        encoded = answer.isBase64Encoded
        body = b64decode(answer.body, validate=True) if encoded else answer.body.encode()
    except (msgspec.DecodeError, ValueError) as error:
        raise ModelFailedError("the function's answer is not an HTTP response") from error
    if not 200 <= answer.statusCode <= 599:
        raise ModelFailedError("the function's answer has no valid status")
    given = [*answer.headers.items(), *(("set-cookie", cookie) for cookie in answer.cookies)]
    headers = [
        (name.lower(), str(value))
        for name, value in given
        if name.lower() not in _UNSUPPORTED_IN_ANSWER and _is_clean(name) and _is_clean(str(value))
    ]
    return BackendResponse(answer.statusCode, headers, body)


def _is_clean(text: str) -> bool:
    """No control characters: a function must not be able to split the response."""
    return text.isprintable() and text.isascii()
