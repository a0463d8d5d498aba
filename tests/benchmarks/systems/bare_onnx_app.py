"""The worker that everybody writes first: an aiohttp handler that calls onnxruntime.

`python -m tests.benchmarks.systems.bare_onnx_app PORT MODEL_FILE`. Knows one model, checks nothing,
counts nothing, and keeps everybody waiting during a run.
"""

import sys
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvloop
from aiohttp import web

HEADER = "inference-header-content-length"


def application(session: onnxruntime.InferenceSession) -> web.Application:
    """One route, for JSON and for the binary extension."""

    async def infer(request: web.Request) -> web.Response:
        body = await request.read()
        length = request.headers.get(HEADER)
        head: Any = msgspec.json.decode(body[: int(length)] if length else body)
        entry = head["inputs"][0]
        data = np.frombuffer(body[int(length) :], "<f4") if length else entry["data"]
        array = np.asarray(data, np.float32).reshape(entry["shape"])
        result: Any = session.run(None, {entry["name"]: array})[0]
        output: dict[str, Any] = {"name": "y", "datatype": "FP32", "shape": result.shape}
        if not length:
            output["data"] = result.ravel().tolist()
            return web.Response(body=_encoded(output), content_type="application/json")
        raw = result.tobytes()
        output["parameters"] = {"binary_data_size": len(raw)}
        text = _encoded(output)
        return web.Response(body=text + raw, headers={HEADER: str(len(text))})

    app = web.Application()
    app.router.add_post("/v2/models/mlp/infer", infer)
    return app


def _encoded(output: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"model_name": "mlp", "model_version": "1", "outputs": [output]})


if __name__ == "__main__":
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    loaded = onnxruntime.InferenceSession(sys.argv[2], options)
    uvloop.install()
    web.run_app(
        application(loaded), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None
    )
