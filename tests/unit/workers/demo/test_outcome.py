"""What the demo tells of what it saw, and when that counts as a failure."""

import pytest

from workers.demo.calls import Call
from workers.demo.outcome import Outcome


def call(status: int = 200, backend: str = "pool", *, cold: bool = False, error: str = "") -> Call:
    return Call("magika", status, backend, "", cold, 0.01, {}, error)


def told(*calls: Call, load: float = 0.0) -> tuple[str, bool]:
    outcome = Outcome()
    for one in calls:
        outcome.add(one)
    outcome.saw({"models": [{"name": "magika", "replicas_ready": 2}]})
    outcome.saw({"models": [{"name": "magika", "replicas_ready": 0}]})
    outcome.saw(None)
    return "\n".join(outcome.sentences(load, cores=2)), outcome.is_good


@pytest.mark.parametrize(
    ("calls", "good", "sentence"),
    [
        ([call(), call(backend="serverless", cold=True)], True,
         "2 of 2 requests were answered: 1 by pool, 1 by serverless; 1 cold"),
        ([call(), call(503, "")], True, "1 were refused with 503"),
        ([call(503, ""), call(504, "")], False, "model magika never answered"),
        ([call(), call(500, "", error="boom")], False, "1 failed, 500: boom"),
        ([call(), call(0, "", error="reset")], False, "1 failed, no answer: reset"),
        ([], False, "0 of 0 requests were answered: none"),
    ],
    ids=["all answered", "some refused", "only refusals", "an error", "no answer", "nothing"],
)  # fmt: skip
def test_the_outcome(calls: list[Call], good: bool, sentence: str):
    text, is_good = told(*calls)
    assert sentence in text
    assert is_good is good
    assert "most replicas at once: 2 of magika" in text
    assert "busy" not in text


def test_a_busy_machine_is_told_and_is_no_failure():
    text, is_good = told(call(), load=7.25)
    assert "busy (7.2 processes for 2 cores)" in text
    assert is_good
