import pytest

from router.backends.refusal import refusal_of, verdict_of_answer
from router.domain.decision import Verdict
from router.domain.errors import UpstreamBrokenError, UpstreamRejectedError

WORDED = b'{"error":"no answer within the timeout of 1e-06 s"}'
TRITON_IN_QUEUE = b'{"error":"Request timeout expired"}'
TRITON_FULL = b'{"error":"[request id: 1] Exceeds maximum queue size"}'
OPENAI = b'{"error":{"message":"timed out","type":"server_error","code":504}}'
PROXY = b"<html><body><h1>504 Gateway Time-out</h1></body></html>"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"", None), (400, b"", None), (404, b"", None), (408, b"", None), (413, b"", None),
        (500, b"", None), (501, b"", None),
        (429, b"", UpstreamRejectedError), (503, b"", UpstreamRejectedError),
        (502, b"", UpstreamBrokenError), (504, b"", UpstreamBrokenError),
        (502, WORDED, UpstreamBrokenError), (503, WORDED, UpstreamRejectedError),
        (504, PROXY, UpstreamBrokenError), (504, b"upstream request timeout", UpstreamBrokenError),
        (504, b'{"message":"Endpoint request timed out"}', UpstreamBrokenError),
        (504, WORDED, None), (504, OPENAI, None),
        (503, TRITON_FULL, UpstreamRejectedError), (503, TRITON_IN_QUEUE, None),
        (504, b'{"error":"' + b"x" * 65536 + b'"}', UpstreamBrokenError),
    ],
)  # fmt: skip
def test_answers_that_mean_another_place_should_be_tried(status, body, error):
    found = refusal_of(status, body, "a replica")
    assert type(found) is (error or type(None))
    if found is not None:
        assert str(found).startswith("a replica")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Verdict.OK), (304, Verdict.OK), (400, Verdict.OK), (413, Verdict.OK),
        (501, Verdict.OK), (500, Verdict.MODEL_ERROR), (504, Verdict.MODEL_ERROR),
    ],
)  # fmt: skip
def test_what_the_models_own_answer_says_about_its_place(status, expected):
    assert verdict_of_answer(status) is expected
