import pytest

from router.backends.refusal import refusal_of
from router.domain.errors import UpstreamBrokenError, UpstreamRejectedError


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None), (400, None), (404, None), (408, None), (500, None), (501, None),
        (429, UpstreamRejectedError), (503, UpstreamRejectedError),
        (502, UpstreamBrokenError), (504, UpstreamBrokenError),
    ],
)  # fmt: skip
def test_statuses_that_mean_another_place_should_be_tried(status, error):
    found = refusal_of(status, "a replica")
    assert type(found) is (error or type(None))
    if found is not None:
        assert str(found).startswith("a replica")
