"""KServe's model server with `y = 2 x` on the port given, in KServe's own environment."""

import sys
from typing import Any
from uuid import uuid4

import numpy as np
import uvicorn  # type: ignore[import-not-found]
from kserve import (  # type: ignore[import-not-found]
    InferOutput,
    InferRequest,
    InferResponse,
    Model,
    ModelServer,
)


class Doubler(Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("doubler")
        self.ready = True

    def predict(self, payload: Any, *_headers: Any, **_more: Any) -> Any:
        if not isinstance(payload, InferRequest):
            return {"predictions": (2 * np.asarray(payload["instances"])).tolist()}
        y = (2 * payload.inputs[0].as_numpy()).astype(np.float32)
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=bool(payload.use_binary_outputs))
        return InferResponse(payload.id or str(uuid4()), self.name, [output])


class LoopbackConfig(uvicorn.Config):  # type: ignore[misc]
    """KServe listens on every interface, and has no setting for that."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "host": "127.0.0.1"})


if __name__ == "__main__":
    uvicorn.Config = LoopbackConfig
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([Doubler()])
