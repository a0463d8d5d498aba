"""Small deterministic ONNX models, written into a repository at test time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

_SEED = 7
_OPSET = helper.make_opsetid("", 17)
_IR_VERSION = 8  # readable by every supported onnxruntime


def write_mlp(
    repository: Path,
    name: str,
    version: str = "1",
    *,
    width: int = 8,
    layers: int = 2,
    options: dict[str, Any] | None = None,
) -> Path:
    """`y[batch, width] = MatMul+Relu` layers of `x[batch, width]` (FP32); batches well."""
    rng = np.random.default_rng(_SEED)
    nodes, weights = [], []
    for layer in range(layers):
        matrix = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        source = "x" if layer == 0 else f"h{layer}"
        target = "y" if layer == layers - 1 else f"h{layer + 1}"
        nodes.append(helper.make_node("MatMul", [source, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [target]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(nodes, name, [x], [y], weights)
    return _write(repository, name, version, graph, options)


def write_identity(
    repository: Path,
    name: str,
    version: str = "1",
    *,
    types: Mapping[str, int] | None = None,
    shape: tuple[int | str, ...] = ("batch", "n"),
    options: dict[str, Any] | None = None,
) -> Path:
    """For each input `x` of `types` (default: one FP32 `x`) an output `x_out` equal to it."""
    nodes, inputs, outputs = [], [], []
    for tensor, kind in (types or {"x": TensorProto.FLOAT}).items():
        nodes.append(helper.make_node("Identity", [tensor], [f"{tensor}_out"]))
        inputs.append(helper.make_tensor_value_info(tensor, kind, list(shape)))
        outputs.append(helper.make_tensor_value_info(f"{tensor}_out", kind, list(shape)))
    graph = helper.make_graph(nodes, name, inputs, outputs)
    return _write(repository, name, version, graph, options)


def write_sum(repository: Path, name: str, version: str = "1") -> Path:
    """`y = a + b` (FP32) of two lists; lists of different lengths fail inside the model."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [f"n_{n}"]) for n in "aby"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], name, ends[:2], ends[2:]
    )
    return _write(repository, name, version, graph, None)


def write_bfloat(repository: Path, name: str) -> Path:
    """`y = -x`, both BF16 of any length; worked out in FP32."""
    x = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["batch"])
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, ["batch"])
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["wide"], ["negative"]),
        helper.make_node("Cast", ["negative"], ["y"], to=TensorProto.BFLOAT16),
    ]
    graph = helper.make_graph(nodes, name, [x], [y])
    return _write(repository, name, "1", graph, {"batching": {"max_batch": 4}})


def write_outer(repository: Path, name: str, *, columns: int) -> Path:
    """`y[batch, columns] = x[batch, 1]` times ones (FP32): little goes in, much comes out."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])
    ones = numpy_helper.from_array(np.ones((1, columns), np.float32), "ones")
    node = helper.make_node("MatMul", ["x", "ones"], ["y"])
    return _write(repository, name, "1", helper.make_graph([node], name, [x], [y], [ones]), None)


def write_slow(
    repository: Path,
    name: str,
    version: str = "1",
    *,
    rounds_per_ms: int = 7,
    options: dict[str, Any] | None = None,
) -> Path:
    """`y[batch] = x[batch]` (FP32) after keeping one core busy for about `max(x)` milliseconds.

    The time is in the input, so that a test chooses it per request: `x = [200.0]` takes some
    200 ms. It is spent in 256-wide MatMuls, `rounds_per_ms` for each millisecond.
    """
    rng = np.random.default_rng(_SEED)
    # Large enough that the state keeps growing into the clip: one that fades away to subnormal
    # numbers makes some processors a hundred times slower.
    matrix = rng.standard_normal((256, 256)).astype(np.float32) / 8
    state = helper.make_tensor_value_info("state", TensorProto.FLOAT, [256, 256])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["product"]),
            helper.make_node("Clip", ["product", "low", "high"], ["next"]),
            helper.make_node("Identity", ["cond"], ["cond_out"]),
        ],
        "spin",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            state,
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "rounds"], ["turns_f"]),
        helper.make_node("Cast", ["turns_f"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "w"], ["spun"], body=body),
        helper.make_node("ReduceMax", ["spun"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(matrix, "w"),
        numpy_helper.from_array(np.array(-1, np.float32), "low"),
        numpy_helper.from_array(np.array(1, np.float32), "high"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array(rounds_per_ms, np.float32), "rounds"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, name, [x], [y], constants)
    return _write(repository, name, version, graph, options)


def _write(
    repository: Path,
    name: str,
    version: str,
    graph: onnx.GraphProto,
    options: dict[str, Any] | None,
) -> Path:
    model = helper.make_model(graph, opset_imports=[_OPSET], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    folder = repository / name / version
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    if options is not None:
        (folder / "model.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    return path
