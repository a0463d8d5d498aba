"""Whatever tensors hold and say of themselves: a bounded number of features, and never an error."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from router.quality.features import features_of
from router.quality.predictions import Reading, Task
from router.quality.samples import QualityParams, seen
from router.quality.subject import Subject
from router.quality.tensors import Answer, Tensor, UnreadableAnswerError
from router.quality.text import read_text

PARAMS = QualityParams(reading=Reading(Task.CLASSIFICATION), first=100)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16]),
    st.integers(0, 40),
)
tensors = st.builds(
    Tensor,
    st.just("FP32"),
    st.lists(st.integers(-2, 40), max_size=3).map(tuple),
    arrays | st.lists(st.binary(max_size=20), max_size=10),
)


@given(
    inputs=st.dictionaries(st.text(max_size=5), tensors, max_size=3),
    outputs=st.dictionaries(st.text(max_size=5), tensors, max_size=3),
    chosen=st.integers(0, 2**48 - 1),
)
def test_any_tensors_are_seen(inputs, outputs, chosen):
    found = seen(inputs, outputs, PARAMS, chosen)
    assert len(found.features) <= PARAMS.max_features
    assert all(type(value) is float for value in found.features.values())


def test_ten_thousand_inputs_are_as_many_features_as_there_is_room_for():
    inputs = {f"x{n}": Tensor("FP32", (1,), np.array([1.0])) for n in range(10_000)}
    found = seen(inputs, {}, PARAMS, 1)
    assert len(found.features) == PARAMS.max_features
    wide = Tensor("FP32", (1, 10_000), np.ones(10_000))
    assert len(seen({"x": wide}, {}, PARAMS, 1).features) <= 8


def test_a_bomb_of_nans_is_missing_values_and_an_alarm():
    subject, rng = Subject(PARAMS, None, 0.0), np.random.default_rng(1)
    found = []
    for at in range(500):
        values = rng.normal(size=20) if at < 300 else np.full(20, np.nan)
        tensor = Tensor("FP32", (1, 20), values)
        features = seen({"x": tensor}, {}, PARAMS, at * 7919).features
        found += subject.sample(features, at * 100.0)
    assert {alarm.test for alarm in found} >= {"missing"}
    assert all(np.isfinite(alarm.p) for alarm in found)


@pytest.mark.parametrize("shape", [(7,), (-1, 4), (2, 3), (0,), (2**40, 2**40)])
def test_a_shape_that_lies_gives_no_features(shape):
    assert features_of({"x": Tensor("FP32", shape, np.ones(4))}, "in", 1, 64) == {}


def test_blur_makes_a_picture_smoother():
    sharp = (np.random.default_rng(1).random((1, 64, 64)) > 0.5).astype(float)
    blurred = sharp.copy()
    blurred[:, :, 1:] = (sharp[:, :, 1:] + sharp[:, :, :-1]) / 2
    rough = [
        features_of({"x": Tensor("FP32", each.shape, each.reshape(-1))}, "in", 1, 64)["in:x#rough"]
        for each in (sharp, blurred)
    ]
    assert rough[1] < 0.8 * rough[0]


def test_a_stream_of_text_is_measured_and_not_kept():
    events = [
        b'data: {"id": "c1", "choices": [{"delta": {"content": "Hel"}}]}',
        b'data: {"id": "c1", "choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]}',
        b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}',
        b"data: [DONE]",
    ]
    answer = Answer(200, {"content-type": "text/event-stream"}, b"\n\n".join(events))
    request = b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}'
    found, own_id = read_text(request, answer)
    assert own_id == "c1"
    assert found.pop("out:finish_reason#hash") > 0
    assert found == {
        "in:characters": 2.0, "in:messages": 1.0, "in:max_tokens": 9.0, "out:characters": 5.0,
        "out:prompt_tokens": 3.0, "out:completion_tokens": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "body"),
    [(b"[]", b"{}"), (b"{", b"{}"), (b"{}", b"["), (b"[" * 10_000, b"{}"), (b"\xff", b"{}")],
)
def test_text_that_cannot_be_read_is_said_to_be_so(request_, body):
    with pytest.raises(UnreadableAnswerError):
        read_text(request_, Answer(200, {}, body))


@given(
    request=st.recursive(st.none() | st.floats() | st.text(max_size=3) | st.integers(),
                         lambda inner: st.lists(inner, max_size=3)
                         | st.dictionaries(st.sampled_from(["messages", "content", "choices",
                                                            "usage", "max_tokens", "delta"]),
                                           inner, max_size=3)),
)  # fmt: skip
def test_any_json_is_text_or_refused(request):
    text = msgspec.json.encode(request)
    try:
        found, _ = read_text(text, Answer(200, {}, text))
    except UnreadableAnswerError:
        return
    assert all(type(value) is float for value in found.values())
