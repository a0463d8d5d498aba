"""Open Inference Protocol v2: what each path means, and the answers the gateway gives itself.

Infer, metadata, config and statistics go to a backend untouched; health, readiness and lists are
answered from the runtime.
"""

from router import __version__
from router.domain.addressing import is_version
from router.domain.errors import InvalidRequestError, NotFoundError
from router.domain.request import Protocol
from router.gateway.access import model_for, models_of
from router.gateway.target import Document, Target, can_serve, require
from router.runtime import ModelRuntime, Runtime
from router.settings.keys import ApiKey

_QUESTIONS = {"config", "stats"}
_NO_VERSION = InvalidRequestError(
    "the version in the path must be 1..100 characters of A-Z a-z 0-9 . _ -, not . or .."
)
_NOT_OIP = NotFoundError("this path is not part of the Open Inference Protocol")


def resolve(
    method: str,
    segments: list[str],
    runtime: Runtime,
    caller: ApiKey | None,
    now: float,
    *,
    is_ready: bool,
) -> Target | Document:
    """What the path (segments after `v2`) asks for. Raises NotFoundError and its like."""
    match segments:
        case ["models", model, *rest]:
            return _of_model(method, model, rest, runtime, caller, now)
        case ["repository", "index"]:
            require(method, "POST")
            return Document(_index(models_of(runtime, caller), now))
        case _:
            require(method, "GET")
            return _of_server(segments, models_of(runtime, caller), is_ready=is_ready)


def _of_server(segments: list[str], models: list[ModelRuntime], *, is_ready: bool) -> Document:
    match segments:
        case [] | [""]:
            return Document(_server())
        case ["health", "live"]:
            return Document({"live": True})
        case ["health", "ready"]:
            return Document({"ready": is_ready}, 200 if is_ready else 503)
        case ["models"]:
            return Document({"models": [model.name for model in models]})
        case _:
            raise _NOT_OIP


def _of_model(
    method: str,
    model: str,
    rest: list[str],
    runtime: Runtime,
    caller: ApiKey | None,
    now: float,
) -> Target | Document:
    version = None
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, rest = rest[1], rest[2:]
        if not is_version(version):
            raise _NO_VERSION
    match rest:
        case ["infer"]:
            require(method, "POST")
            return Target(Protocol.OIP, "infer", model, version)
        case []:
            require(method, "GET")
            return Target(Protocol.OIP, "", model, version)
        case [question] if question in _QUESTIONS:
            require(method, "GET")
            return Target(Protocol.OIP, question, model, version)
        case ["ready"]:
            require(method, "GET")
            ready = can_serve(model_for(runtime, caller, model), now)
            return Document({"name": model, "ready": ready}, 200 if ready else 503)
        case _:
            raise _NOT_OIP


def _server() -> dict[str, object]:
    extensions = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
    return {"name": "hybrid-router", "version": __version__, "extensions": extensions}


def _index(models: list[ModelRuntime], now: float) -> list[dict[str, str]]:
    return [
        {
            "name": model.name,
            "state": "READY" if can_serve(model, now) else "UNAVAILABLE",
            "reason": "",
        }
        for model in models
    ]
