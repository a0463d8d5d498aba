"""The endpoints of OIP v2 as values: path -> operation, operation -> reply, bytes -> bytes.

Decides which paths exist and how each is answered, the same for every front. Does no I/O except
loading a model that is not loaded yet.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from workers.codec import (
    BINARY_TYPE,
    HEADER_LENGTH,
    JSON_TYPE,
    decode_request,
    encode_response,
    parse_header_length,
)
from workers.compression import MIN_COMPRESSED_BYTES, choose_coding, compress, decompress
from workers.kserve_v1 import decode_predict, encode_predict
from workers.protocol import (
    BrokenModel,
    InferRequest,
    InferResponse,
    InvalidRequest,
    PathNotFound,
    Reply,
    VerbNotAllowed,
    WorkerError,
)
from workers.service import EXTENSIONS, SERVER_NAME, SERVER_VERSION, Catalog, Model

Headers = Mapping[str, str]


class Endpoint(Enum):
    """Every endpoint of a worker."""

    SERVER = "server"
    LIVE = "live"
    READY = "ready"
    MODELS = "models"
    ALL_STATS = "all stats"
    INDEX = "index"
    METADATA = "metadata"
    MODEL_READY = "model ready"
    CONFIG = "config"
    STATS = "stats"
    INFER = "infer"
    V1_MODELS = "V1 models"
    V1_MODEL = "V1 model"
    PREDICT = "predict"
    LOAD = "load"
    UNLOAD = "unload"


RUNS: Final = frozenset({Endpoint.INFER, Endpoint.PREDICT})
"""The endpoints that run a model."""
CHANGES: Final = frozenset({Endpoint.LOAD, Endpoint.UNLOAD})
"""The endpoints that change which models are in memory."""
_POSTED: Final = RUNS | CHANGES | {Endpoint.INDEX}


_FIXED: Final = {
    "/v2": Endpoint.SERVER,
    "/v2/health/live": Endpoint.LIVE,
    "/v2/health/ready": Endpoint.READY,
    "/v2/models": Endpoint.MODELS,
    "/v2/models/stats": Endpoint.ALL_STATS,
    "/v2/repository/index": Endpoint.INDEX,
    "/v1/models": Endpoint.V1_MODELS,
}
_OF_MODEL: Final = {
    None: Endpoint.METADATA,
    "ready": Endpoint.MODEL_READY,
    "config": Endpoint.CONFIG,
    "stats": Endpoint.STATS,
    "infer": Endpoint.INFER,
}
_MODEL_PATH = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
    r"(?:/(?P<action>ready|config|stats|infer))?"
)
_REPOSITORY_PATH = re.compile(r"/v2/repository/models/(?P<model>[^/]+)/(?P<action>load|unload)")
_V1_PATH = re.compile(r"/v1/models/(?P<model>[^/:]+)(?P<action>:predict)?")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request line asks for."""

    endpoint: Endpoint
    model: str = ""
    version: str | None = None


def match(verb: str, raw_path: str) -> Operation:
    """The operation of a verb and a (still quoted) path without its query.

    Raises PathNotFound or VerbNotAllowed.
    """
    path = raw_path.rstrip("/")
    if path in _FIXED:
        operation = Operation(_FIXED[path])
    elif v1 := _V1_PATH.fullmatch(path):
        endpoint = Endpoint.PREDICT if v1["action"] else Endpoint.V1_MODEL
        operation = Operation(endpoint, unquote(v1["model"]))
    elif change := _REPOSITORY_PATH.fullmatch(path):
        operation = Operation(Endpoint(change["action"]), unquote(change["model"]))
    else:
        found = _MODEL_PATH.fullmatch(path)
        if found is None:
            raise PathNotFound(f"no such endpoint: {raw_path[:200]!r}")
        version = found["version"]
        operation = Operation(
            _OF_MODEL[found["action"]],
            unquote(found["model"]),
            None if version is None else unquote(version),
        )
    wanted = "POST" if operation.endpoint in _POSTED else "GET"
    if verb != wanted:
        raise VerbNotAllowed(f"{raw_path[:200]!r} takes {wanted}, not {verb[:20]!r}")
    return operation


def describe(catalog: Catalog, operation: Operation, ready: bool) -> Reply:
    """The reply to everything but an inference. May load a model, so it may block.

    `ready` is whether this worker takes inferences. Raises WorkerError.
    """
    if operation.endpoint in CHANGES:
        return _changed(catalog, operation)
    if operation.model:
        return _describe_model(catalog, operation, ready)
    match operation.endpoint:
        case Endpoint.LIVE:
            content: object = {"live": True}
        case Endpoint.READY:
            return json_reply({"ready": ready}, 200 if ready else 503)
        case Endpoint.MODELS | Endpoint.V1_MODELS:
            content = {"models": list(catalog.names)}
        case Endpoint.ALL_STATS:
            content = {"model_stats": [_stats(model) for model in catalog.loaded_models()]}
        case Endpoint.INDEX:
            content = catalog.index()
        case _:
            content = _server_metadata()
    return json_reply(content)


def _changed(catalog: Catalog, operation: Operation) -> Reply:
    """Load or unload a model; the body, which may ask for another configuration, is not read."""
    if operation.endpoint is Endpoint.LOAD:
        catalog.load_anew(operation.model)
    else:
        catalog.unload(operation.model)
    return json_reply({})


def _describe_model(catalog: Catalog, operation: Operation, ready: bool) -> Reply:
    if operation.endpoint in (Endpoint.MODEL_READY, Endpoint.V1_MODEL):
        return _model_ready(catalog, operation, ready)
    model = catalog.load(operation.model, operation.version)
    if operation.endpoint is Endpoint.METADATA:
        return json_reply(model.metadata(catalog.versions(model.name)))
    if operation.endpoint is Endpoint.CONFIG:
        return json_reply(model.config())
    return json_reply({"model_stats": [_stats(model)]})


def _model_ready(catalog: Catalog, operation: Operation, ready: bool) -> Reply:
    reason = "" if ready else "the worker is draining"
    if ready:
        try:
            catalog.load(operation.model, operation.version)
        except BrokenModel as error:
            reason = str(error)
    body = {"name": operation.model, "ready": not reason}
    return json_reply({**body, "error": reason} if reason else body, 503 if reason else 200)


def _server_metadata() -> dict[str, Any]:
    return {"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": list(EXTENSIONS)}


def _stats(model: Model) -> dict[str, Any]:
    return model.statistics.as_json(model.name, model.version)


def read_infer(
    model: Model, headers: Headers, body: bytes | bytearray, limit_bytes: int
) -> InferRequest:
    """The inference a body (with lower-case headers) asks for; inflates at most `limit_bytes`.

    No Content-Type is required: real clients send none, or a wrong one. Raises WorkerError.
    """
    plain = decompress(body, headers.get("content-encoding", ""), limit_bytes)
    if not plain:
        raise InvalidRequest("the request has no body")
    length = parse_header_length(headers.get(HEADER_LENGTH), len(plain))
    return decode_request(plain, length, model.inputs)


def read_predict(
    model: Model, headers: Headers, body: bytes | bytearray, limit_bytes: int
) -> InferRequest:
    """As `read_infer`, of a body of the V1 protocol."""
    return decode_predict(
        decompress(body, headers.get("content-encoding", ""), limit_bytes), model.inputs
    )


def write_predict(request: InferRequest, response: InferResponse, accept_encoding: str) -> Reply:
    """As `write_infer`, in the V1 protocol."""
    shape = request.inputs[0].array.shape
    body = encode_predict(response, shape[0] if shape else 1)
    return _packed(body, {"content-type": JSON_TYPE}, accept_encoding)


def write_infer(request: InferRequest, response: InferResponse, accept_encoding: str) -> Reply:
    """The reply to an inference, compressed where the client takes it and it is worth it."""
    body, json_length = encode_response(request, response)
    headers = {"content-type": JSON_TYPE if json_length is None else BINARY_TYPE}
    if json_length is not None:
        headers[HEADER_LENGTH] = str(json_length)
    return _packed(body, headers, accept_encoding)


def _packed(body: bytes, headers: dict[str, str], accept_encoding: str) -> Reply:
    coding = choose_coding(accept_encoding) if len(body) >= MIN_COMPRESSED_BYTES else None
    if coding is not None:
        body = compress(body, coding)
        headers["content-encoding"] = coding
    return Reply(200, body, headers)


def error_reply(error: WorkerError) -> Reply:
    """The protocol's error body."""
    return json_reply({"error": str(error)}, error.status)


def json_reply(content: object, status: int = 200) -> Reply:
    """A JSON reply."""
    return Reply(status, msgspec.json.encode(content), {"content-type": JSON_TYPE})
