"""Open Inference Protocol v2: what each path means, and the answers the gateway gives itself.

Infer, metadata, config and statistics go to a backend untouched; health, readiness and lists are
answered from the runtime.
"""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from router import __version__
from router.domain.addressing import is_version, quoted
from router.domain.errors import InvalidRequestError, NotFoundError, UnsupportedError
from router.domain.request import AnswerForm
from router.gateway.access import model_for, models_of
from router.gateway.protocols.base import (
    BodyQuestion,
    CountsQuestion,
    Document,
    Own,
    Question,
    Target,
    Told,
    WireProtocol,
    require,
)
from router.gateway.protocols.models import longest_name
from router.gateway.protocols.parameters import read_parameters
from router.gateway.readiness import can_serve
from router.runtime import ModelRuntime
from router.telemetry.metrics import ModelCounts
from router.turns import Steps

_QUESTIONS = {"config", "stats"}
_ENDS = _QUESTIONS | {"infer", "ready"}
_NO_VERSION = InvalidRequestError(
    "the version in the path must be 1..100 characters of A-Z a-z 0-9 . _ -, not . or .."
)
_UNKNOWN = NotFoundError("this path is not part of the API; inference is under /v2")


class OpenInference(WireProtocol):
    """The Open Inference Protocol, version 2."""

    name = "oip"
    answers = AnswerForm.TENSORS
    tells_in_body = True

    def path(self, action: str, model: str, version: str | None) -> str:
        """Infer, config, stats, and nothing for the metadata: of a model or a version of it."""
        versions = f"/versions/{quoted(version)}" if version is not None else ""
        return f"/v2/models/{quoted(model)}{versions}/{action}".rstrip("/")

    def error_document(self, message: str, code: str, status: int) -> dict[str, object]:
        """A string: that is all that clients look for."""
        del code, status
        return {"error": message}

    def owns(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether it is under `/v2`."""
        del headers
        return path == "/v2" or path.startswith("/v2/")

    def runs(self, action: str) -> bool:
        """Whether it is an inference."""
        return action == "infer"

    def resolve(self, question: Question) -> Target | Own:
        """What the path asks for. Raises NotFoundError and its like."""
        match question.segments:
            case ["v2", "models", first, *rest]:
                return _of_model(question, [first, *rest])
            case ["v2", "repository", "index"]:
                require(question.method, "POST")
                return BodyQuestion(partial(_index, _models(question), question.now))
            case ["v2", "repository", "models", *_, "load" | "unload"]:
                raise UnsupportedError("models are loaded by the gateway's configuration alone")
            case ["v2", "trace" | "logging" as what, *_]:
                raise UnsupportedError(f"the gateway has no {what} settings: ask the model server")
            case ["v2", "systemsharedmemory" | "cudasharedmemory", *_]:
                raise UnsupportedError("shared memory does not reach beyond one machine")
            case [""]:
                # What KServe's client looks for where it asks for the server's life in V1.
                return _for_get(question, Document({**_server(), "status": "alive"}))
            case ["v2", *rest]:
                return _for_get(question, _of_server(question, rest))
            case _:
                raise _UNKNOWN

    async def told(self, body: bytes, headers: Mapping[str, str]) -> Told:
        """The reserved parameters. Raises InvalidRequestError."""
        parameters = await read_parameters(body, headers)
        timeout, sequence = parameters.timeout, parameters.sequence_id
        return Told(
            timeout / 1e6 if timeout is not None and timeout > 0 else None,
            parameters.class_,
            # 0 and "" mean that the request belongs to no sequence.
            str(sequence) if sequence else None,
        )


OIP = OpenInference()


def _models(question: Question) -> list[ModelRuntime]:
    return models_of(question.runtime, question.caller)


def _for_get(question: Question, document: Document) -> Document:
    require(question.method, "GET")
    return document


def _of_server(question: Question, segments: list[str]) -> Document:
    match segments:
        case [] | [""]:
            return Document(_server())
        case ["health", "live"]:
            return Document({"live": True})
        case ["health", "ready"]:
            is_ready = question.is_ready
            return Document({"ready": is_ready}, 200 if is_ready else 503)
        case ["models"]:
            return Document({"models": [model.name for model in _models(question)]})
        case _:
            raise _UNKNOWN


def _of_model(question: Question, segments: list[str]) -> Target | Document | CountsQuestion:
    known = longest_name(question, segments)
    if segments == ["stats"] and not known:
        require(question.method, "GET")
        return CountsQuestion(partial(_statistics, _models(question)))
    count = known or _asked_name(segments)
    model, rest = "/".join(segments[:count]), segments[count:]
    version = None
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, rest = rest[1], rest[2:]
        if not is_version(version):
            raise _NO_VERSION
    match rest:
        case ["infer"]:
            require(question.method, "POST")
            return Target(OIP, "infer", model, version)
        case []:
            require(question.method, "GET")
            return Target(OIP, "", model, version)
        case [asked] if asked in _QUESTIONS:
            require(question.method, "GET")
            return Target(OIP, asked, model, version)
        case ["ready"]:
            return _for_get(question, _readiness(question, model, version))
        case ["trace", "setting"]:
            raise UnsupportedError("the gateway has no trace settings: ask the model server")
        case _:
            raise _UNKNOWN


def _readiness(question: Question, name: str, version: str | None) -> Document:
    model = model_for(question.runtime, question.caller, name)
    is_ready = can_serve(model, question.now, version)
    return Document({"name": name, "ready": is_ready}, 200 if is_ready else 503)


def _asked_name(segments: list[str]) -> int:
    """How many segments are meant as a name, of a model that there is not."""
    count = len(segments)
    if count > 1 and segments[count - 1] in _ENDS:
        count -= 1
    if count > 2 and segments[count - 2] == "versions":
        count -= 2
    return count


def _server() -> dict[str, object]:
    extensions = ["binary_tensor_data", "model_configuration", "statistics"]
    return {"name": "hybrid-router", "version": __version__, "extensions": extensions}


def _statistics(
    models: list[ModelRuntime], counts: Callable[[str], ModelCounts]
) -> Steps[Document]:
    """As Triton words them. What happens inside of a model server is not known here."""
    entries = []
    for model in models:
        entries.append(_statistics_of(model.name, counts(model.name)))
        yield
    return Document({"model_stats": entries})


def _statistics_of(name: str, found: ModelCounts) -> dict[str, object]:
    times = {
        "success": _duration(found.succeeded, found.total_s),
        "fail": _duration(found.failed, 0.0),
        "queue": _duration(found.waits, found.waited_s),
        "compute_infer": _duration(found.attempts, found.attempts_s),
    }
    return {
        "name": name,
        "inference_count": found.succeeded,
        "execution_count": found.attempts,
        "inference_stats": times,
        "batch_stats": [],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}


class _IndexRequest(msgspec.Struct):
    ready: bool = False


def _index(models: list[ModelRuntime], now: float, body: bytes) -> Document:
    try:
        asked = msgspec.json.decode(body or b"{}", type=_IndexRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not a valid index request: {error}") from None
    entries = [entry for model in models for entry in _entries(model, now)]
    return Document([e for e in entries if e["state"] == "READY" or not asked.ready])


def _entries(model: ModelRuntime, now: float) -> list[dict[str, str]]:
    """One for each version that is known; for all of them together where none is."""
    known = model.pool.rotation.known_versions if model.pool is not None else ()
    versions: list[str | None] = [*sorted(known)]
    return [
        {
            "name": model.name,
            **({"version": version} if version is not None else {}),
            "state": "READY" if can_serve(model, now, version) else "UNAVAILABLE",
            "reason": "",
        }
        for version in versions or [None]
    ]
