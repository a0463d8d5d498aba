"""One inference call in the Open Inference Protocol with binary tensors, as any client makes it.

Knows the wire format and nothing of the gateway's inside: what it learns is in response headers.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_DATATYPES = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
_DTYPES = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64}


@dataclass(frozen=True, slots=True)
class Call:
    """A finished call: where it ran and why, how long it took, and the tensors (none if it failed).

    `latency_s` is what the client saw.
    """

    model: str
    status: int
    backend: str
    reason: str
    cold: bool
    latency_s: float
    outputs: Arrays
    error: str


def encode(inputs: Arrays) -> tuple[bytes, str]:
    """The body of a request, and the value of its Inference-Header-Content-Length."""
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _DATATYPES[array.dtype.name],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return b"".join([head, *(array.tobytes() for array in inputs.values())]), str(len(head))


def decode(body: bytes, header_length: str | None) -> Arrays:
    """The output tensors of an answer."""
    length = int(header_length) if header_length is not None else len(body)
    offset = length
    outputs: dict[str, NDArray[Any]] = {}
    for tensor in json.loads(body[:length])["outputs"]:
        dtype = _DTYPES[tensor["datatype"]]
        if "data" in tensor:
            flat = np.array(tensor["data"], dtype)
        else:
            size = tensor["parameters"]["binary_data_size"]
            flat = np.frombuffer(body[offset : offset + size], dtype)
            offset += size
        outputs[tensor["name"]] = flat.reshape(tensor["shape"])
    return outputs


async def infer(session: aiohttp.ClientSession, url: str, model: str, inputs: Arrays) -> Call:
    """Call the model through the gateway at `url`. Never raises: no answer is status 0."""
    body, header_length = encode(inputs)
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": header_length,
    }
    started = time.perf_counter()
    path = f"{url}/v2/models/{model}/infer"
    try:
        async with session.post(path, data=BytesIO(body), headers=headers) as response:
            content = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        latency_s = time.perf_counter() - started
        return Call(model, 0, "", "", False, latency_s, {}, str(error) or type(error).__name__)
    latency_s = time.perf_counter() - started
    ok = response.status == 200
    got = response.headers
    return Call(
        model=model,
        status=response.status,
        backend=got.get("x-router-backend", ""),
        reason=got.get("x-router-reason", ""),
        cold=got.get("x-router-cold-start") == "true",
        latency_s=latency_s,
        outputs=decode(content, got.get("inference-header-content-length")) if ok else {},
        error="" if ok else content[:200].decode("utf-8", "replace"),
    )
