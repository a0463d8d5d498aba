"""One ONNX Runtime session: what the model takes and gives, and running it.

Decides whether given tensors fit the model. Knows no transport, queue or batch.
"""

import ctypes
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from workers.protocol import (
    NUMPY_TYPES,
    Array,
    BrokenModel,
    Datatype,
    InferenceFailed,
    InvalidRequest,
    Tensor,
    TensorSpec,
)
from workers.repository import ModelFile

_MESSAGE_CHARACTERS = 300
_ONNX_BFLOAT16: Final = 16  # TensorProto.DataType
_WARNING_AND_WORSE_HIDDEN = 3
_MAX_SEARCHED_BYTES = 64 * 1024 * 1024
# NodeProto.op_type (field 4) as it lies in the file. What only looks like it costs some speed.
_DECIDED_BY_VALUES: Final = tuple(
    b'"' + bytes([len(name)]) + name.encode()
    for name in ("Loop", "Scan", "If", "SequenceMap", "Range", "ConstantOfShape", "Tile", "Expand")
)

_DATATYPES: Final[Mapping[str, Datatype]] = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}

# onnxruntime's errors share no base class of their own.
_ORT_ERRORS: Final = (
    ort_errors.EngineError,
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

Feeds = Mapping[str, Array]


class Engine:
    """A loaded model. `run` blocks and releases the GIL; call it from several threads freely."""

    def __init__(self, model: ModelFile, threads: int) -> None:
        """Load the model; raises BrokenModel with the file and the reason."""
        try:
            self._session = onnxruntime.InferenceSession(
                str(model.path), _session_options(threads), providers=["CPUExecutionProvider"]
            )
            self._runs_evenly = _runs_evenly(model.path)
            self.inputs = tuple(_spec(arg) for arg in self._session.get_inputs())
            self.outputs = tuple(_spec(arg) for arg in self._session.get_outputs())
            specs = (*self.inputs, *self.outputs)
            self._has_bf16 = any(spec.datatype is Datatype.BF16 for spec in specs)
            self._gives_strings = any(spec.datatype is Datatype.BYTES for spec in self.outputs)
            self._output_names = [spec.name for spec in self.outputs]
        except _ORT_ERRORS as error:
            raise BrokenModel(f"{model.path} cannot be loaded: {_first_line(error)}") from error
        except KeyError as error:
            raise BrokenModel(f"{model.path}: tensor type {error} is not supported") from error

    @property
    def runs_evenly(self) -> bool:
        """Whether runs on inputs of one size take one time: no value decides what is worked out.

        False also where looking would take long, for a model so large is not quick anyway.
        """
        return self._runs_evenly

    @property
    def first_axis_is_dynamic(self) -> bool:
        """Whether every input and output grows along axis 0, the precondition of batching."""
        specs = (*self.inputs, *self.outputs)
        return all(spec.shape and spec.shape[0] == -1 for spec in specs)

    def run(self, feeds: Feeds) -> list[Array]:
        """All outputs in the model's order; strings are `bytes`.

        Raises InvalidRequest where the runtime refuses the inputs, else InferenceFailed.
        """
        try:
            results: list[Any] = self._run(feeds)
        except ort_errors.InvalidArgument as error:
            raise InvalidRequest(f"the model refuses the inputs: {_first_line(error)}") from error
        except _ORT_ERRORS as error:
            raise InferenceFailed(f"the model failed: {_first_line(error)}") from error
        if not self._gives_strings:
            return results
        return [
            _encode_strings(result) if spec.datatype is Datatype.BYTES else result
            for spec, result in zip(self.outputs, results, strict=True)
        ]

    def _run(self, feeds: Feeds) -> list[Any]:
        if not self._has_bf16:
            results: list[Any] = self._session.run(self._output_names, feeds)
            return results
        # The runtime takes and gives BF16 only as values of its own.
        values = {spec.name: _value_of(spec.datatype, feeds[spec.name]) for spec in self.inputs}
        found = self._session.run_with_ort_values(None, values)
        return [
            _array_of(spec.datatype, value) for spec, value in zip(self.outputs, found, strict=True)
        ]


def _value_of(datatype: Datatype, array: Array) -> onnxruntime.OrtValue:
    if datatype is Datatype.BF16:
        bits = np.ascontiguousarray(array)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _array_of(datatype: Datatype, value: onnxruntime.OrtValue) -> Array:
    if datatype is not Datatype.BF16:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    if not math.prod(shape):
        return np.empty(shape, NUMPY_TYPES[datatype])
    bits = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
    # Copied while `value`, whose memory it is, is there.
    return np.frombuffer(bits, NUMPY_TYPES[datatype]).reshape(shape).copy()


def _runs_evenly(path: Path) -> bool:
    if path.stat().st_size > _MAX_SEARCHED_BYTES:
        return False
    content = path.read_bytes()
    return not any(operator in content for operator in _DECIDED_BY_VALUES)


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads burn the cores of the neighbours between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _WARNING_AND_WORSE_HIDDEN
    return options


def _spec(arg: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in arg.shape)
    symbols = tuple(dim if isinstance(dim, str) else "" for dim in arg.shape)
    symbols = symbols if any(symbols) else ()
    return TensorSpec(arg.name, _DATATYPES[arg.type], shape, symbols)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:_MESSAGE_CHARACTERS] if lines else type(error).__name__


def _encode_strings(array: Array) -> Array:
    encoded = np.empty(array.shape, dtype=object)
    encoded.ravel()[:] = [text.encode() for text in array.ravel()]
    return encoded


def zeros(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
    """Empty strings or zeros for every input, in its shape of `shapes`, else the smallest."""
    tensors = []
    for spec in specs:
        smallest = tuple(1 if dim < 0 else dim for dim in spec.shape)
        empty = b"" if spec.datatype is Datatype.BYTES else 0
        array = np.full(shapes.get(spec.name, smallest), empty, NUMPY_TYPES[spec.datatype])
        tensors.append(Tensor(spec.name, spec.datatype, array))
    return tensors


def validate_inputs(specs: Sequence[TensorSpec], tensors: Sequence[Tensor]) -> dict[str, Array]:
    """The tensors as the runtime takes them.

    Raises InvalidRequest naming the input, and what was expected and given.
    """
    given = {tensor.name: tensor for tensor in tensors}
    if len(given) > len(specs):
        _refuse_unknown(specs, given)
    sizes: dict[str, tuple[str, int]] = {}
    feeds: dict[str, Array] = {}
    for spec in specs:
        tensor = given.get(spec.name)
        if tensor is None:
            _refuse_unknown(specs, given)  # more likely what was meant for this one
            raise InvalidRequest(
                f"input {spec.name!r} is missing; expected {spec.datatype} {list(spec.shape)}"
            )
        _check_type_and_shape(spec, tensor)
        if spec.symbols:
            _check_symbols(spec, tensor.array.shape, sizes)
        is_text = spec.datatype is Datatype.BYTES
        feeds[spec.name] = _decode_strings(tensor) if is_text else tensor.array
    return feeds


def _refuse_unknown(specs: Sequence[TensorSpec], given: Iterable[str]) -> None:
    known = [spec.name for spec in specs]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidRequest(
            f"unexpected input {unknown[0][:128]!r}; the model takes {', '.join(known)}"
        )


def _check_type_and_shape(spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype is not spec.datatype:
        raise InvalidRequest(
            f"input {spec.name!r}: expected datatype {spec.datatype}, got {tensor.datatype}"
        )
    shape = tensor.array.shape
    if shape == spec.shape:
        return
    fits = len(shape) == len(spec.shape)
    for want, have in zip(spec.shape, shape, strict=False):
        fits = fits and want in (-1, have)
    if not fits:
        raise InvalidRequest(
            f"input {spec.name!r}: expected shape {list(spec.shape)} (-1 = any), got {list(shape)}"
        )


def _check_symbols(
    spec: TensorSpec, shape: tuple[int, ...], sizes: dict[str, tuple[str, int]]
) -> None:
    for symbol, size in zip(spec.symbols, shape, strict=False):
        if not symbol:
            continue
        first, expected = sizes.setdefault(symbol, (spec.name, size))
        if size != expected:
            raise InvalidRequest(
                f"input {spec.name!r}: dimension {symbol!r} is {size}, but {expected} in input "
                f"{first!r}"
            )


def _decode_strings(tensor: Tensor) -> Array:
    texts = np.empty(tensor.array.shape, dtype=object)
    try:
        texts.ravel()[:] = [element.decode() for element in tensor.array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"input {tensor.name!r}: the model takes UTF-8 text only") from error
    return texts
