"""KServe's V1 protocol: lists, readiness and `:predict`.

`/v1/models` is also OpenAI's: those answers carry both shapes.
"""

from router.domain.addressing import quoted
from router.domain.errors import NotFoundError
from router.domain.request import AnswerForm
from router.gateway.access import model_for, models_of
from router.gateway.protocols.base import Document, Question, Target, WireProtocol, require
from router.gateway.readiness import can_serve

_ACTION = "predict"
_PREDICT = f":{_ACTION}"


class KServeV1(WireProtocol):
    """KServe's V1 protocol."""

    name = "kserve_v1"
    answers = AnswerForm.PREDICTIONS

    def path(self, action: str, model: str, version: str | None) -> str:
        """The model and its verb; there are no versions."""
        del version
        return f"/v1/models/{quoted(model)}:{action}"

    def error_document(self, message: str, code: str, status: int) -> dict[str, object]:
        """A string: that is all that clients look for."""
        del code, status
        return {"error": message}

    def owns(self, path: str) -> bool:
        """Whether it is under `/v1/models`."""
        return path == "/v1/models" or path.startswith("/v1/models/")

    def resolve(self, question: Question) -> Target | Document:
        """What the path asks for. Raises NotFoundError and its like."""
        match question.segments:
            case ["v1", "models"]:
                require(question.method, "GET")
                names = [model.name for model in models_of(question.runtime, question.caller)]
                entries = [_entry(name) for name in names]
                return Document({"models": names, "object": "list", "data": entries})
            case ["v1", "models", name] if name.endswith(_PREDICT):
                require(question.method, "POST")
                return Target(self, _ACTION, name.removesuffix(_PREDICT))
            case ["v1", "models", name]:
                require(question.method, "GET")
                model = model_for(question.runtime, question.caller, name)
                ready = can_serve(model, question.now)
                return Document({"name": name, "ready": ready, **_entry(name)})
            case _:
                raise NotFoundError("this path is not part of the KServe V1 protocol")


KSERVE_V1 = KServeV1()


def _entry(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "hybrid-router"}
