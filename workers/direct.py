"""One HTTP request to one reply on the calling thread: what every function front shares.

Decides which models a function holds and how errors become replies; inference is `operations`' and
`service`'s. Imports no server, event loop or metrics, so that a function starts fast.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from workers.operations import (
    RUNS,
    Endpoint,
    describe,
    error_reply,
    json_reply,
    match,
    read_infer,
    read_predict,
    write_infer,
    write_predict,
)
from workers.protocol import Reply, WorkerError
from workers.service import Catalog

_log = logging.getLogger(__name__)


def load_catalog(environment: Mapping[str, str]) -> Catalog:
    """The catalog that MODEL_REPOSITORY, MODEL_NAME, MODEL_VERSION and MODEL_THREADS describe.

    Raises RuntimeError naming a missing or invalid variable, ModelNotFound, BrokenModel.
    """
    repository = environment.get("MODEL_REPOSITORY", "")
    if not repository:
        raise RuntimeError("set MODEL_REPOSITORY to the folder that holds the models")
    name = environment.get("MODEL_NAME", "")
    threads = environment.get("MODEL_THREADS", "")
    if threads and not (threads.isascii() and threads.isdigit() and int(threads) > 0):
        raise RuntimeError(f"MODEL_THREADS = {threads!r}, must be a positive number")
    catalog = Catalog(
        Path(repository),
        [name] if name else None,
        int(threads) if threads else None,
        default_version=environment.get("MODEL_VERSION") or None,
    )
    if name:
        catalog.load(name)
    return catalog


def answer(
    catalog: Catalog,
    verb: str,
    path: str,
    headers: Mapping[str, str],
    body: Callable[[], bytes],
    max_body_bytes: int,
) -> Reply:
    """The reply to one request; raises WorkerError.

    `path` is still quoted; `headers` has lower-case names; `body` is read only if it is needed.
    `max_body_bytes` bounds what a compressed body may inflate to.
    """
    operation = match(verb, path)
    if operation.endpoint not in RUNS:
        return describe(catalog, operation, ready=True)
    model = catalog.load(operation.model, operation.version)
    is_v1 = operation.endpoint is Endpoint.PREDICT
    read, write = (read_predict, write_predict) if is_v1 else (read_infer, write_infer)
    request = read(model, headers, body(), max_body_bytes)
    return write(request, model.infer(request), headers.get("accept-encoding", ""))


def is_inference(verb: str, path: str) -> bool:
    """Whether the request is to run a model; probes and questions about models are not."""
    try:
        return match(verb, path).endpoint is Endpoint.INFER
    except WorkerError:
        return False


def guarded(make_reply: Callable[[], Reply]) -> Reply:
    """The reply, or that of the error it raised: whatever a client sent, the process lives on."""
    try:
        return make_reply()
    except WorkerError as error:
        return error_reply(error)
    except Exception:  # noqa: BLE001 - root of the request: the sandbox must survive, the log must tell
        _log.exception("request failed")
        return json_reply({"error": "internal error"}, 500)
