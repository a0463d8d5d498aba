from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.errors import InvalidRequestError
from router.jobs.lines import answered, line_of, lines_of
from router.jobs.records import Job, Result, Spec, State, lane_of

GOOD = b'{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {"n": 1.0}}'


async def parts_of(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
async def test_lines_are_those_of_the_file_however_it_is_cut(content, cuts):
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    parts = [content[start:end] for start, end in pairwise(places)]
    found = [one async for one in lines_of(parts_of(parts), 1000)]
    wanted = [(number, text) for number, text in enumerate(content.split(b"\n"), 1) if text.strip()]
    assert [(one.number, one.content) for one in found] == wanted
    for one in found:
        assert content[one.start : one.start + one.length] == one.content


async def test_a_line_that_is_too_long_is_told_and_passed_over():
    found = [one async for one in lines_of(parts_of([b"x" * 5, b"x" * 8 + b"\nok"]), 10)]
    assert [(one.number, one.content, one.length) for one in found] == [
        (1, None, 13), (2, b"ok", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"[]", "no valid request"),
        (b"\xff", "no valid request"),
        (GOOD.replace(b'"a"', b'""'), "custom_id"),
        (GOOD.replace(b"POST", b"GET"), "method"),
        (GOOD.replace(b"/v1/x", b"/v1/y"), "endpoint"),
        (GOOD.replace(b'{"n": 1.0}', b"[]"), "body"),
        (GOOD.replace(b', "body": {"n": 1.0}', b""), "body"),
    ],
)
def test_what_is_wrong_with_a_line(line, told):
    with pytest.raises(InvalidRequestError, match=told):
        line_of(line, "/v1/x")


@pytest.mark.parametrize(
    ("body", "embedded"),
    [
        (b'{"a": 1.50}', b'{"a": 1.50}'),
        (b'{\n "a": 1.50\r\n}', b'{"a":1.50}'),
        (b"text", b'"text"'),
        (b"\xff\x00", b'{"base64":"/wA="}'),
        (b'{"a": 1e999}', b'{"a": 1e999}'),
        (b'["\xff"]', b'{"base64":"WyL/Il0="}'),
        (b"", b'""'),
    ],
    ids=[
        "JSON as it is",
        "JSON in one line",
        "text",
        "bytes",
        "a number beyond all",
        "JSON but for its letters",
        "nothing",
    ],
)
def test_an_answer_becomes_a_part_of_a_line(body, embedded):
    done = Job(
        "j", lane_of("m", "t", "b", 1.0), "t", 0.0, 1.0, Spec(custom_id="c"), "b", 7, State.DONE,
        result=Result(200, request_id="r"),
    )  # fmt: skip
    assert answered(done, body) == (
        b'{"id":"batch_req_j","custom_id":"c","response":{"status_code":200,"request_id":"r",'
        b'"body":' + embedded + b'},"error":null}\n'
    )
