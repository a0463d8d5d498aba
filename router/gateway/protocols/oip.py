"""Open Inference Protocol v2: what each path means, and the answers the gateway gives itself.

Infer, metadata, config and statistics go to a backend untouched; health, readiness and lists are
answered from the runtime.
"""

from collections.abc import Mapping

from router import __version__
from router.domain.addressing import is_version, quoted
from router.domain.errors import InvalidRequestError, NotFoundError
from router.domain.request import AnswerForm
from router.gateway.access import model_for, models_of
from router.gateway.protocols.base import Document, Question, Target, Told, WireProtocol, require
from router.gateway.protocols.parameters import read_parameters
from router.gateway.readiness import can_serve
from router.runtime import ModelRuntime

_QUESTIONS = {"config", "stats"}
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

    def owns(self, path: str) -> bool:
        """Whether it is under `/v2`."""
        return path == "/v2" or path.startswith("/v2/")

    def runs(self, action: str) -> bool:
        """Whether it is an inference."""
        return action == "infer"

    def resolve(self, question: Question) -> Target | Document:
        """What the path asks for. Raises NotFoundError and its like."""
        match question.segments:
            case ["v2", "models", model, *rest]:
                return _of_model(question, model, rest)
            case ["v2", "repository", "index"]:
                require(question.method, "POST")
                return Document(_index(_models(question), question.now))
            case ["v2", *rest]:
                require(question.method, "GET")
                return _of_server(rest, _models(question), is_ready=question.is_ready)
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
            raise _UNKNOWN


def _of_model(question: Question, model: str, rest: list[str]) -> Target | Document:
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
            require(question.method, "GET")
            found = model_for(question.runtime, question.caller, model)
            ready = can_serve(found, question.now)
            return Document({"name": model, "ready": ready}, 200 if ready else 503)
        case _:
            raise _UNKNOWN


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
