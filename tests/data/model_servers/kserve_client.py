"""KServe's own client against the URL and model given; prints what it got as JSON."""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import (  # type: ignore[import-not-found]
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

X = np.array([[1.0, 2.0, 3.0]], np.float32)


def request(model: str, *, binary: bool) -> InferRequest:
    tensor = InferInput("x", list(X.shape), "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary)
    parameters = {"binary_data_output": True} if binary else {}
    return InferRequest(model, [tensor], request_id="r-1", parameters=parameters)


async def main(url: str, model: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["model_ready"] = await client.is_model_ready(url, model)
        for name, binary in (("json", False), ("binary", True)):
            # More than once, so that the gateway's shortcut for known heads has its turn.
            asked = [client.infer(url, request(model, binary=binary), model) for _ in range(3)]
            answers = [await each for each in asked]
            found[name] = answers[-1].outputs[0].as_numpy().tolist()
            found[f"{name}_id"] = answers[-1].id
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        answer = await client.infer(url, {"instances": X.tolist()}, model)
        found["v1"] = answer["predictions"]
        found["v1_live"] = await client.is_server_live(url)
        found["v1_model_ready"] = await client.is_model_ready(url, model)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2]))))
