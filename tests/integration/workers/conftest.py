from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto

from tests.fakes.models import write_identity, write_mlp, write_slow
from tests.fakes.worker_process import WorkerProcess, running_worker

ALL_TYPES = {
    "flag": TensorProto.BOOL,
    "half": TensorProto.FLOAT16,
    "real": TensorProto.FLOAT,
    "wide": TensorProto.DOUBLE,
    "small": TensorProto.INT8,
    "count": TensorProto.UINT64,
    "text": TensorProto.STRING,
}


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mlp` (batched, two versions), `types` (one input of every kind), `slow`, `broken`."""
    root = tmp_path_factory.mktemp("repository")
    batching = {"batching": {"max_batch": 16, "max_delay_ms": 1}}
    write_mlp(root, "mlp", "1", width=16)
    write_mlp(root, "mlp", "2", width=32, options=batching)
    write_identity(root, "types", types=ALL_TYPES)
    write_identity(root, "single", types={"x": TensorProto.FLOAT}, shape=("n", 2))
    write_slow(root, "slow")
    write_mlp(root, "broken").write_bytes(b"not a model")
    return root


@pytest.fixture(scope="module")
def mlp_worker(repository: Path) -> Iterator[WorkerProcess]:
    with running_worker(repository, "mlp", "--max-body", "1000000") as worker:
        yield worker


@pytest.fixture(scope="module")
def types_worker(repository: Path) -> Iterator[WorkerProcess]:
    with running_worker(repository, "types") as worker:
        yield worker
