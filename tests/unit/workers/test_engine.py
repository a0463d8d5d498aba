from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from tests.fakes.models import write_bfloat, write_identity, write_mlp, write_sum
from workers.engine import Engine, validate_inputs
from workers.protocol import (
    BrokenModel,
    Datatype,
    InferenceFailed,
    InvalidRequest,
    Tensor,
    TensorSpec,
)
from workers.repository import ModelFile, find_model

SPECS = (
    TensorSpec("ids", Datatype.INT64, (-1, -1), ("batch", "length")),
    TensorSpec("mask", Datatype.FP32, (-1, -1), ("batch", "length")),
    TensorSpec("size", Datatype.INT32, (2,), ("",)),
)


def tensors(**changes: Any) -> list[Tensor]:
    arrays = {
        "ids": (Datatype.INT64, np.zeros((2, 3), np.int64)),
        "mask": (Datatype.FP32, np.zeros((2, 3), np.float32)),
        "size": (Datatype.INT32, np.zeros(2, np.int32)),
        **changes,
    }
    return [Tensor(name, *pair) for name, pair in arrays.items() if pair is not None]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("missing", {"mask": None}, r"input 'mask' is missing; expected FP32 \[-1, -1\]"),
    ("unexpected", {"x": (Datatype.FP32, np.zeros(1))}, "unexpected input 'x'; .* ids, mask, size"),
    (
        "datatype",
        {"mask": (Datatype.FP64, np.zeros((2, 3)))},
        "input 'mask': expected datatype FP32, got FP64",
    ),
    (
        "rank",
        {"mask": (Datatype.FP32, np.zeros(6, np.float32))},
        r"input 'mask': expected shape \[-1, -1\] .*, got \[6\]",
    ),
    (
        "fixed dimension",
        {"size": (Datatype.INT32, np.zeros(3, np.int32))},
        r"input 'size': expected shape \[2\] .*, got \[3\]",
    ),
    (
        "dimension shared with another input",
        {"mask": (Datatype.FP32, np.zeros((2, 4), np.float32))},
        "input 'mask': dimension 'length' is 4, but 3 in input 'ids'",
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_input_that_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        validate_inputs(SPECS, tensors(**changes))


def test_fitting_inputs_become_feeds() -> None:
    assert list(validate_inputs(SPECS, tensors())) == ["ids", "mask", "size"]


def test_text_must_be_utf8() -> None:
    spec = TensorSpec("s", Datatype.BYTES, (-1,))
    array = np.array([b"\xff"], dtype=object)
    with pytest.raises(InvalidRequest, match="input 's': the model takes UTF-8"):
        validate_inputs([spec], [Tensor("s", Datatype.BYTES, array)])


def load(root: Path, name: str) -> Engine:
    return Engine(find_model(root, name), threads=1)


def test_specs_come_from_the_model(repository: Path) -> None:
    engine = load(repository, "pair")
    assert engine.inputs == (
        TensorSpec("a", Datatype.INT64, (-1, -1), ("batch", "n")),
        TensorSpec("b", Datatype.FP32, (-1, -1), ("batch", "n")),
    )


def test_result_equals_the_runtime_called_directly(repository: Path) -> None:
    x = np.random.default_rng(7).standard_normal((5, 4)).astype(np.float32)
    path = find_model(repository, "mlp").path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    assert np.array_equal(load(repository, "mlp").run({"x": x})[0], expected)
    assert expected.any()


def test_text_comes_back_as_bytes(repository: Path) -> None:
    engine = load(repository, "text")
    array = np.array(["é".encode(), b"a\0b"], dtype=object)
    feeds = validate_inputs(engine.inputs, [Tensor("s", Datatype.BYTES, array)])
    assert engine.run(feeds)[0].tolist() == ["é".encode(), b"a\0b"]


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model", b"\x08\x08"],
    ids=["empty file", "garbage", "no graph"],
)
def test_broken_model_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = write_mlp(tmp_path, "m")
    path.write_bytes(content)
    with pytest.raises(BrokenModel, match="cannot be loaded") as caught:
        load(tmp_path, "m")
    assert str(path) in str(caught.value)


def test_missing_model_file_is_named(tmp_path: Path) -> None:
    write_mlp(tmp_path, "m")
    file = find_model(tmp_path, "m")
    gone = ModelFile("m", "1", tmp_path / "gone.onnx", file.options, 0)
    with pytest.raises(BrokenModel, match=r"gone\.onnx"):
        Engine(gone, threads=1)


def test_tensor_type_the_protocol_lacks_is_refused(tmp_path: Path) -> None:
    write_identity(tmp_path, "m", types={"x": TensorProto.FLOAT8E4M3FN})
    with pytest.raises(BrokenModel, match=r"float8|cannot be loaded"):
        load(tmp_path, "m")


def test_bf16_is_taken_and_given_as_its_bits(tmp_path: Path) -> None:
    write_bfloat(tmp_path, "m")
    engine = load(tmp_path, "m")
    [found] = engine.run({"x": np.array([0x3FC0, 0xC000], "<u2")})  # 1.5 and -2
    assert (found.dtype, found.tolist()) == (np.dtype("<u2"), [0xBFC0, 0x4000])
    assert engine.run({"x": np.zeros(0, "<u2")})[0].shape == (0,)


def test_input_the_runtime_refuses_is_the_clients_fault(repository: Path) -> None:
    with pytest.raises(InvalidRequest, match="the model refuses the inputs"):
        load(repository, "mlp").run({"x": np.zeros((1, 5), np.float32)})


def test_failure_inside_the_model_is_its_own_fault(tmp_path: Path) -> None:
    write_sum(tmp_path, "sum")
    feeds = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    with pytest.raises(InferenceFailed, match=r"the model failed: .*Add"):
        load(tmp_path, "sum").run(feeds)
