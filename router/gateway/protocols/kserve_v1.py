"""KServe's V1 protocol: lists, readiness and `:predict`.

`/v1/models` is also OpenAI's: those answers carry both shapes.
"""

from collections.abc import Mapping

from router.domain.addressing import quoted
from router.domain.errors import NotFoundError
from router.domain.request import AnswerForm
from router.gateway.protocols.base import Document, Question, Target, WireProtocol, require
from router.gateway.protocols.models import listed, longest_name

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

    def owns(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether it is under `/v1/models`."""
        del headers
        return path == "/v1/models" or path.startswith("/v1/models/")

    def resolve(self, question: Question) -> Target | Document:
        """What the path asks for. Raises NotFoundError and its like."""
        match question.segments:
            case ["v1", "models", *_, last] if last.endswith(_PREDICT):
                require(question.method, "POST")
                name = "/".join(question.segments[2:]).removesuffix(_PREDICT)
                return Target(self, _ACTION, name)
            case ["v1", "models", *parts] if not _has_unknown_end(question, parts):
                return listed(question, parts)
            case _:
                raise NotFoundError("this path is not part of the KServe V1 protocol")


KSERVE_V1 = KServeV1()


def _has_unknown_end(question: Question, parts: list[str]) -> bool:
    """Whether something follows the name of a model that is no part of a name."""
    return 0 < longest_name(question, parts) < len(parts)
