"""HTTP events of AWS's payload format 2.0: one event in, one response out, synchronously.

Decides how an event maps to a request and back; inference is `operations`' and `service`'s.
Imports no server, event loop or metrics, so that a function starts fast.
"""

import base64
import binascii
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from workers.operations import (
    Endpoint,
    describe,
    error_reply,
    json_reply,
    match,
    read_infer,
    write_infer,
)
from workers.protocol import InvalidRequest, Reply, WorkerError
from workers.service import Catalog

_log = logging.getLogger(__name__)

# What a compressed body may inflate to; the event itself is at most 6 MB.
INFLATED_LIMIT_BYTES: Final = 64 * 1024 * 1024


def load_catalog(environment: Mapping[str, str]) -> Catalog:
    """The catalog that MODEL_REPOSITORY, MODEL_NAME and MODEL_THREADS describe.

    Raises RuntimeError naming a missing or invalid variable, ModelNotFound, BrokenModel.
    """
    repository = environment.get("MODEL_REPOSITORY", "")
    if not repository:
        raise RuntimeError("set MODEL_REPOSITORY to the folder that holds the models")
    name = environment.get("MODEL_NAME", "")
    threads = environment.get("MODEL_THREADS", "")
    if threads and not (threads.isascii() and threads.isdigit() and int(threads) > 0):
        raise RuntimeError(f"MODEL_THREADS = {threads!r}, must be a positive number")
    catalog = Catalog(Path(repository), [name] if name else None, int(threads) if threads else None)
    if name:
        catalog.load(name)
    return catalog


def serve(catalog: Catalog, event: Mapping[str, Any]) -> dict[str, Any]:
    """The response to one event; never raises for what a client sent."""
    try:
        reply = _reply(catalog, event)
    except WorkerError as error:
        reply = error_reply(error)
    except Exception:  # noqa: BLE001 - root of the request: the sandbox must survive, the log must tell
        _log.exception("request failed")
        reply = json_reply({"error": "internal error"}, 500)
    return _to_event(reply)


def _reply(catalog: Catalog, event: Mapping[str, Any]) -> Reply:
    verb, path = _request_line(event)
    operation = match(verb, path)
    if operation.endpoint is not Endpoint.INFER:
        return describe(catalog, operation, ready=True)
    model = catalog.load(operation.model, operation.version)
    headers = {str(k).lower(): str(v) for k, v in (event.get("headers") or {}).items()}
    request = read_infer(model, headers, _body(event), INFLATED_LIMIT_BYTES)
    return write_infer(request, model.infer(request), headers.get("accept-encoding", ""))


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
