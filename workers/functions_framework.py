"""The front for Google's Functions Framework: `workers.functions_framework.infer`.

For Cloud Functions, and whatever else runs that framework. Works when imported, like
`lambda_handler`: loading the models is the function's start. Needs no framework installed.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from workers.function_environment import FunctionEnvironment

_environment = FunctionEnvironment(os.environ)


class FlaskRequest(Protocol):
    """What the framework hands over: a Flask request, as far as it is used."""

    method: str
    path: str
    environ: Mapping[str, Any]
    headers: Mapping[str, str]

    def get_data(self) -> bytes:
        """The whole body."""
        ...


def infer(request: FlaskRequest) -> tuple[bytes, int, dict[str, str]]:
    """Answer one request."""
    reply = _environment.answer(
        request.method, _raw_path(request), dict(request.headers), request.get_data
    )
    return reply.body, reply.status, dict(reply.headers)


def _raw_path(request: FlaskRequest) -> str:
    """The path as it was sent: in `path` an encoded slash of a model's name is no longer one."""
    raw = str(request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or "")
    return raw.partition("?")[0] or quote(request.path)
