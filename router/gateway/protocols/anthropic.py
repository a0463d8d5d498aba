"""Anthropic's Messages API, as many model servers speak it: bodies like OpenAI's, other errors."""

from collections.abc import Mapping

from router.domain.errors import NotFoundError
from router.gateway.protocols.base import Question, Target, require
from router.gateway.protocols.openai import OpenAI

_MESSAGES = "messages"
_PATHS = {(_MESSAGES,), (_MESSAGES, "count_tokens")}
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Anthropic(OpenAI):
    """Messages and the count of their tokens."""

    name = "anthropic"

    def error_document(self, message: str, code: str, status: int) -> dict[str, object]:
        """An object of a closed shape; clients tell errors apart by its inner type."""
        del code
        kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}

    def owns(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether it is `/v1/messages` or below."""
        del headers
        return path == f"/v1/{_MESSAGES}" or path.startswith(f"/v1/{_MESSAGES}/")

    def resolve(self, question: Question) -> Target:
        """What the path asks for. Raises NotFoundError and MethodNotAllowedError."""
        _, *action = question.segments
        if tuple(action) not in _PATHS:
            raise NotFoundError("this path is not part of the API")
        require(question.method, "POST")
        return Target(self, "/".join(action), None)


ANTHROPIC = Anthropic()
