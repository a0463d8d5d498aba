# ruff: noqa: N818 - errors are named for what happened; the suffix would say nothing more
"""Values of the Open Inference Protocol v2: datatypes, tensors, requests, answers, errors.

Decides what a valid datatype, shape and error status are. Knows no transport, no encoding and
no model runtime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_RANK = 32
# Larger than any tensor a body can carry, small enough that index arithmetic cannot overflow.
MAX_DIMENSION = 2**40


class Datatype(StrEnum):
    """Tensor element types of the protocol. BF16 is kept as its 16 bits: numpy has no such type."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


# Little-endian as on the wire. BYTES elements are Python `bytes` in an object array.
NUMPY_TYPES: Mapping[Datatype, np.dtype[Any]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype("<u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("<i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.BF16: np.dtype("<u2"),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BYTES: np.dtype(object),
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model declares about one tensor; -1 is a dynamic dimension.

    `symbols` names the dynamic dimensions where the model does (else ""): dimensions of one
    name must agree between the inputs of a request.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    symbols: tuple[str, ...] = ()


class Tensor(NamedTuple):
    """A named array. Its datatype is explicit because object arrays do not tell theirs."""

    name: str
    datatype: Datatype
    array: Array


class RequestedOutput(NamedTuple):
    """An output the client named. `binary` is None where the client left it to the default.

    `classes` asks for so many of the largest values instead of all, 0 for the tensor itself.
    """

    name: str
    binary: bool | None = None
    classes: int = 0


class InferRequest(NamedTuple):
    """One decoded request. No `outputs` means all of them. `timeout_s` is None where not given."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    binary_by_default: bool = False
    timeout_s: float | None = None

    def wants_binary(self, output: str) -> bool:
        """Whether `output` travels as raw bytes instead of JSON."""
        for requested in self.outputs:
            if requested.name == output and requested.binary is not None:
                return requested.binary
        return self.binary_by_default


class InferResponse(NamedTuple):
    """One answer, outputs in the order in which they were asked for."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str = ""


class Reply(NamedTuple):
    """What a front sends back; header names are lower-case, the body is complete."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


class WorkerError(Exception):
    """Base of every error a client may see; the message says what happened and what to do."""

    status = 500


class InvalidRequest(WorkerError):
    """The request cannot be served as it is; sending it again will not help."""

    status = 400


class ModelNotFound(WorkerError):
    """No such model or version here."""

    status = 404


class PathNotFound(WorkerError):
    """No such endpoint."""

    status = 404


class VerbNotAllowed(WorkerError):
    """The endpoint exists, but not for this HTTP verb."""

    status = 405


class RequestTimeout(WorkerError):
    """The client did not send its body in time."""

    status = 408


class PayloadTooLarge(WorkerError):
    """The body, or what it decompresses to, exceeds the limit."""

    status = 413


class UnsupportedEncoding(WorkerError):
    """A Content-Encoding this worker does not read."""

    status = 415


class InferenceFailed(WorkerError):
    """The model accepted the inputs and then failed."""

    status = 500


class BrokenModel(WorkerError):
    """The model's files cannot be loaded."""

    status = 500


class UnsupportedFeature(WorkerError):
    """Part of the protocol that this worker does not offer."""

    status = 501


class WorkerBusy(WorkerError):
    """The queue is full: nothing was executed, another replica may take the request."""

    status = 503


class NoRoom(WorkerError):
    """The model needs more memory than this worker may use for models."""

    status = 507


class WorkerDraining(WorkerError):
    """The worker is shutting down: nothing was executed."""

    status = 503


class DeadlinePassed(WorkerError):
    """The request's own timeout passed before its answer was there."""

    status = 504
