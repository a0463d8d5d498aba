"""The shape in which each wire protocol words an error.

Decides nothing about what is said, nor about statuses.
"""

from collections.abc import Callable, Mapping

from router.domain.request import Protocol


def error_document(protocol: Protocol, message: str, code: str, status: int) -> dict[str, object]:
    """The JSON document that tells a client of that protocol what went wrong."""
    return _SHAPES[protocol](message, code, status)


def _plain(message: str, code: str, status: int) -> dict[str, object]:
    del code, status
    return {"error": message}


def _openai(message: str, code: str, status: int) -> dict[str, object]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


_SHAPES: Mapping[Protocol, Callable[[str, str, int], dict[str, object]]] = {
    Protocol.OIP: _plain,
    Protocol.KSERVE_V1: _plain,
    Protocol.OPENAI: _openai,
}
