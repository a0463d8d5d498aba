"""The cases of the W3C's own test suite (w3c/trace-context, test/test.py) for one traceparent."""

import pytest

from router.domain.trace_context import read_traceparent, trace_id_of

TRACE = "12345678901234567890123456789012"
PARENT = "1234567890123456"


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-03", True),
        (f" \t00-{TRACE}-{PARENT}-01\t ", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_valid_one_is_read(value, is_sampled):
    found = read_traceparent(value)
    assert found is not None
    assert (found.trace_id, found.parent_id, found.is_sampled) == (TRACE, PARENT, is_sampled)
    assert trace_id_of(value) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f".0-{TRACE}-{PARENT}-01",
        f"0.-{TRACE}-{PARENT}-01",
        f"000-{TRACE}-{PARENT}-01",
        f"0000-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01.",
        f"00-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
        f"cc-{TRACE}-{PARENT}-01.what-the-future-will-be-like",
        f"00-{TRACE}-{PARENT}-.0",
        f"00-{TRACE}-{PARENT}-0.",
        f"00-{TRACE}-{PARENT}-001",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-.{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-.{PARENT[1:]}-01",
        f"00-{TRACE}-{PARENT}1-01",
        f"00-{TRACE}-{PARENT[:-1]}-01",
        f"00-ABCDEF{TRACE[6:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"00-{TRACE[:-1]}\u0661-{PARENT}-01",
    ],
)
def test_what_breaks_the_grammar_is_none(value):
    assert read_traceparent(value) is None
    assert trace_id_of(value) is None
