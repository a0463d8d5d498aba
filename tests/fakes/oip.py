"""OIP v2 bodies and Lambda HTTP events for tests, built by hand: independent of our codec."""

import base64
import json
from typing import Any


def infer_json(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def json_input(name: str, datatype: str, shape: list[int], data: Any, **extra: Any) -> Any:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **extra}


def binary_input(name: str, datatype: str, shape: list[int], size: Any) -> Any:
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": size},
    }


def http_event(
    method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """An event of payload format 2.0, its body always in base64."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": headers or {},
        "requestContext": {"http": {"method": method, "path": path, "protocol": "HTTP/1.1"}},
        "body": None if body is None else base64.b64encode(body).decode(),
        "isBase64Encoded": body is not None,
    }


def event_body(response: dict[str, Any]) -> bytes:
    """The bytes of a function's response."""
    if response["isBase64Encoded"]:
        return base64.b64decode(response["body"])
    return str(response["body"]).encode()
