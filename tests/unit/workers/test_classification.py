"""The largest values of an output, with index and label."""

from typing import Any

import numpy as np
import pytest

from workers.classification import classified
from workers.protocol import Datatype, InvalidRequest, Tensor


def found(values: Any, classes: int, *labels: str, datatype: Datatype = Datatype.FP32) -> Any:
    tensor = classified(Tensor("y", datatype, np.array(values)), classes, labels)
    assert (tensor.name, tensor.datatype) == ("y", Datatype.BYTES)
    return tensor.array.tolist()


@pytest.mark.parametrize(
    ("values", "classes", "labels", "expected"),
    [
        ([[0.1, 0.7, 0.2]], 2, (), [[b"0.700000:1", b"0.200000:2"]]),
        ([[1.0, 2.0], [4.0, 3.0]], 1, ("no", "yes"), [[b"2.000000:1:yes"], [b"4.000000:0:no"]]),
        ([3, 9], 9, ("only",), [b"9:1", b"3:0:only"]),
        ([[5, 5, 5]], 2, (), [[b"5:0", b"5:1"]]),
        ([[np.nan, 1.0]], 1, (), [[b"1.000000:1"]]),
        (np.zeros((0, 3)), 2, (), []),
    ],
    ids=[
        "the largest first",
        "each row for itself, with labels",
        "no more than there are",
        "equal values by their index",
        "what is no number comes last",
        "no rows",
    ],
)
def test_the_largest_values_are_named(values, classes, labels, expected):
    assert found(values, classes, *labels) == expected


@pytest.mark.parametrize(
    ("values", "datatype"),
    [([b"a"], Datatype.BYTES), ([True], Datatype.BOOL), (1.0, Datatype.FP32)],
    ids=["text", "flags", "one value alone"],
)
def test_what_has_no_order_is_refused(values, datatype):
    with pytest.raises(InvalidRequest, match="no tensor of numbers"):
        found(values, 1, datatype=datatype)
