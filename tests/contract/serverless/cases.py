"""What every platform must give, as requests to the model `echo` and checks of the answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from router.domain.ports import BackendResponse
from tests.fakes.oip import binary_input, infer_json, json_input

X = np.random.default_rng(7).standard_normal((2, 3)).astype(np.float32)
LARGE = np.random.default_rng(7).standard_normal((256, 1024)).astype(np.float32)


def _binary(array: np.ndarray[Any, Any]) -> tuple[bytes, dict[str, str]]:
    head = infer_json(
        binary_input("x", "FP32", list(array.shape), array.nbytes),
        parameters={"binary_data_output": True},
    )
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return head + array.tobytes(), headers


def _tensor(response: BackendResponse) -> bytes:
    headers = {name.lower(): value for name, value in response.headers}
    return response.body[int(headers["inference-header-content-length"]) :]


@dataclass(frozen=True)
class Case:
    """One request, and what its answer must be."""

    check: Callable[[BackendResponse], bool]
    status: int = 200
    body: bytes = b""
    facts: dict[str, Any] = field(default_factory=dict)


def _data(response: BackendResponse) -> Any:
    return json.loads(response.body)["outputs"][0]["data"]


def _says(text: str) -> Callable[[BackendResponse], bool]:
    return lambda response: text in json.loads(response.body)["error"]


JSON_BODY = infer_json(json_input("x", "FP32", [1, 3], [1.5, 2.0, -3.25]))
_SMALL, _SMALL_HEADERS = _binary(X)
_LARGE, _LARGE_HEADERS = _binary(LARGE)

CASES = {
    "JSON": Case(lambda r: _data(r) == [1.5, 2.0, -3.25], body=JSON_BODY),
    "JSON without a content type's charset": Case(
        lambda r: _data(r) == [1.5, 2.0, -3.25],
        body=JSON_BODY,
        facts={"headers": {"content-type": "application/json"}},
    ),
    "binary tensors": Case(
        lambda r: _tensor(r) == X.tobytes(),
        body=_SMALL,
        facts={"is_text": False, "headers": _SMALL_HEADERS},
    ),
    "a megabyte of binary tensors": Case(
        lambda r: _tensor(r) == LARGE.tobytes(),
        body=_LARGE,
        facts={"is_text": False, "headers": _LARGE_HEADERS},
    ),
    "the model's metadata": Case(
        lambda r: json.loads(r.body)["name"] == "echo",
        facts={"method": "GET", "path": "/v2/models/echo", "is_inference": False},
    ),
    "the model's own 400": Case(
        _says("x"), 400, infer_json(json_input("wrong", "FP32", [1], [1.0]))
    ),
    "the model server's own 404": Case(
        _says("other"), 404, JSON_BODY, {"path": "/v2/models/other/infer"}
    ),
    "a name with an encoded slash": Case(
        _says("a/b"), 404, JSON_BODY, {"path": "/v2/models/a%2Fb/infer"}
    ),
}
