import json

import pytest

from tests.benchmarks.scenarios import MODEL, SCENARIOS, Scenario, Shape


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_body_has_exactly_its_size_and_is_always_the_same(scenario: Scenario):
    assert len(scenario.body) == scenario.body_bytes
    assert scenario.body == scenario.body


def test_small_bodies_have_many_lengths():
    sizes = [len(body) for body in Scenario("x", "x", Shape.INFER, 300, 1).bodies]
    assert sizes == list(range(268, 332))


@pytest.mark.parametrize("shape", [Shape.INFER, Shape.OPENAI])
def test_small_bodies_are_the_json_of_their_protocol(shape: Shape):
    document = json.loads(Scenario("x", "x", shape, 300, 1).body)
    if shape is Shape.OPENAI:
        assert document["model"] == MODEL
        assert document["messages"]
    else:
        assert document["inputs"][0]["datatype"] == "FP32"
