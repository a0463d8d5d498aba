"""The classification extension: the largest values of an output, as `VALUE:INDEX[:LABEL]`.

Decides how an output is ranked and written. Knows no request and no model.
"""

from collections.abc import Sequence

import numpy as np

from workers.protocol import Datatype, InvalidRequest, Tensor
from workers.tensors import bytes_array


def classified(tensor: Tensor, classes: int, labels: Sequence[str]) -> Tensor:
    """The `classes` largest values of each row of an output, as BYTES; or all, if there are fewer.

    The rows are those of the last axis. Raises InvalidRequest for what has no order.
    """
    array = tensor.array
    if tensor.datatype in (Datatype.BYTES, Datatype.BOOL, Datatype.BF16) or not array.ndim:
        raise InvalidRequest(f"output {tensor.name!r} is no tensor of numbers to be classified")
    count = min(classes, array.shape[-1])
    rows = array.reshape(-1, array.shape[-1]) if array.size else array.reshape(0, 0)
    # Equal values are ranked by their index.
    order = np.argsort(-rows.astype(np.float64), axis=-1, kind="stable")[:, :count]
    texts = [
        _text(row[index], int(index), labels) for row, found in zip(rows, order, strict=True)
        for index in found
    ]  # fmt: skip
    return Tensor(tensor.name, Datatype.BYTES, bytes_array(texts).reshape(*array.shape[:-1], count))


def _text(value: np.generic, index: int, labels: Sequence[str]) -> bytes:
    number = str(value) if isinstance(value, np.integer) else f"{value:f}"
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{number}:{index}{label}".encode()
