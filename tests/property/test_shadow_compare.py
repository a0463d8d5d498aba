"""Comparing never raises, is the same both ways, and finds what was changed."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from router.domain.request import AnswerForm
from router.quality.tensors import Answer
from router.shadow.compare import compare

answers = st.builds(
    Answer,
    status=st.just(200),
    headers=st.dictionaries(
        st.sampled_from(["inference-header-content-length", "content-encoding"]),
        st.sampled_from(["0", "5", "-1", "gzip", "deflate", "identity", "x"]),
        max_size=2,
    ),
    body=st.binary(max_size=60)
    | st.sampled_from([b"{}", b'{"outputs":[]}', b'{"predictions":null}', b"[]"]),
)
floats = hnp.arrays(
    np.float32,
    st.integers(0, 20),
    elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf]),
)


@given(protocol=st.sampled_from(AnswerForm), one=answers, other=answers)
def test_any_two_answers_can_be_compared(protocol, one, other):
    found = compare(protocol, one, other, 1e-3)
    assert found.is_match == compare(protocol, other, one, 1e-3).is_match
    assert compare(protocol, one, one, 0.0).is_match


def answer_of(values, *, binary: bool) -> Answer:
    head: dict[str, object] = {"name": "y", "datatype": "FP32", "shape": [len(values)]}
    if not binary:
        data = [float(value) for value in values]
        return Answer(200, {}, json.dumps({"outputs": [{**head, "data": data}]}).encode())
    raw = values.tobytes()
    head["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"outputs": [head]}).encode()
    return Answer(200, {"inference-header-content-length": str(len(text))}, text + raw)


@given(values=floats, at=st.integers(0, 100), by=st.floats(1.0, 1e6))
def test_a_changed_number_is_found_and_measured(values, at, by):
    same = answer_of(values.copy(), binary=True)
    assert compare(AnswerForm.TENSORS, answer_of(values, binary=True), same, 0.0).is_match
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return
    changed = values.astype(np.float64)
    index = finite[at % len(finite)]
    changed[index] += by
    changed = changed.astype(np.float32)
    exact = abs(float(changed[index]) - float(values[index]))
    found = compare(
        AnswerForm.TENSORS, answer_of(values, binary=True), answer_of(changed, binary=True), 0.0
    )
    assert found.max_difference == exact
    assert found.is_match == (exact == 0.0)


@given(values=floats)
def test_json_and_binary_are_the_same(values):
    finite = values[np.isfinite(values)]
    as_text, as_bytes = answer_of(finite, binary=False), answer_of(finite, binary=True)
    assert compare(AnswerForm.TENSORS, as_text, as_bytes, 0.0).is_match
