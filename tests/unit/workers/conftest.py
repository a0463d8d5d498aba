from pathlib import Path

import pytest
from onnx import TensorProto

from tests.fakes.models import write_identity, write_mlp


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mlp` (batched, versions 1 and 2), `pair` (two inputs that share dimensions), `text`."""
    root = tmp_path_factory.mktemp("repository")
    options = {"batching": {"max_batch": 4, "max_delay_ms": 2}, "labels": ["no", "yes"]}
    write_mlp(root, "mlp", "1", width=4)
    write_mlp(root, "mlp", "2", width=4, options=options)
    write_identity(root, "pair", types={"a": TensorProto.INT64, "b": TensorProto.FLOAT})
    write_identity(root, "text", types={"s": TensorProto.STRING}, shape=("n",))
    return root
