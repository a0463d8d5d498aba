"""An ONNX model for MLServer, run as a bare session. Runs in MLServer's own environment."""

import os
from typing import Any

import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
)


class Onnx(MLModel):  # type: ignore[misc]
    """The model in the file that ONNX_FILE names."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(os.environ["ONNX_FILE"], options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        result = self._session.run(None, {payload.inputs[0].name: x})[0]
        output = NumpyCodec.encode_output("y", result)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
