"""A model for MLServer: `y = 2 x`. Runs in MLServer's own environment."""

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
)


class Doubler(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("y", x * 2)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
