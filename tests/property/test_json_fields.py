"""The fields that decide are those that a complete parser finds, for any object in any parts."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.domain.errors import InvalidRequestError
from router.gateway.protocols.json_fields import FieldScanner, FieldsError
from router.gateway.protocols.openai import OPENAI

NAMES = frozenset({"model", "stream"})
LIKE_MODEL = st.sampled_from(["model", "Model", "MODEL", "model\0", "modell", "mode", "", "a:b"])
LIKE_STREAM = st.sampled_from(["stream", "Stream", "\N{LATIN SMALL LETTER LONG S}tream", "ream"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", '\\"', "{", "}", '","model":"x', "\n", "/*", "model", "\x7f"]
)
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, width=32) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT | LIKE_MODEL, inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.lists(
    st.tuples(LIKE_MODEL, TEXT) | st.tuples(LIKE_STREAM, st.booleans()) | st.tuples(TEXT, VALUE),
    max_size=5,
)  # fmt: skip
SPACE = st.text(" \t\r\n", max_size=2)
ESCAPED = st.booleans()


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """An object whose fields may repeat, with space and escapes where they may be."""
    fields = []
    for name, value in draw(FIELDS):
        written = json.dumps(name, ensure_ascii=draw(ESCAPED))
        if draw(ESCAPED) and name:
            written = f'"\\u{ord(name[0]):04x}{written[2:]}' if name[0].isalpha() else written
        spaces = [draw(SPACE) for _ in range(4)]
        told = json.dumps(value, ensure_ascii=draw(ESCAPED))
        fields.append(f"{spaces[0]}{written}{spaces[1]}:{spaces[2]}{told}{spaces[3]}")
    return f"{draw(SPACE)}{{{','.join(fields)}}}{draw(SPACE)}".encode()


def scan(body: bytes, sizes: list[int]) -> dict[str, Any]:
    """The fields as the scanner finds them in such parts. Raises FieldsError."""
    scanner = FieldScanner(NAMES)
    start = 0
    for size in sizes:
        scanner.feed(body[start : start + size])
        start += size
    scanner.feed(body[start:])
    found = scanner.end()
    for field in found.values():
        assert body[field.start : field.end] == field.value
    return {name: json.loads(field.value, object_pairs_hook=list) for name, field in found.items()}


def like(name: str) -> str:
    return name.partition("\0")[0].casefold()


def expected(body: bytes) -> dict[str, Any] | None:
    """The fields as a complete parser finds them; None where another might find others."""
    strange: list[str] = []  # Infinity and NaN: Python's parser takes them, JSON does not
    pairs = json.loads(body, object_pairs_hook=list, parse_constant=strange.append)
    if strange or any("\ud800" <= sign <= "\udfff" for name, _ in pairs for sign in name):
        return None  # of half a character, some parsers put another in its place, others refuse it
    asked = [(name, value) for name, value in pairs if like(name) in NAMES]
    is_sure = len({like(name) for name, _ in asked}) == len(asked)
    return dict(asked) if is_sure and all(name in NAMES for name, _ in asked) else None


SIZES = st.lists(st.integers(0, 9), max_size=40)


@given(objects(), SIZES)
@example(b'{"stream":false,"model":"","\\u11103ud804\\udd03":null}', [])
def test_the_scanner_finds_what_a_parser_finds_or_refuses(body, sizes):
    try:
        found = scan(body, sizes)
    except FieldsError:
        assert expected(body) is None
    else:
        assert found == expected(body)


@given(objects(), SIZES, st.data())
def test_broken_text_is_read_as_a_parser_would_read_it(body, sizes, data):
    place = data.draw(st.integers(0, len(body)))
    part = data.draw(
        st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b",", b":", b"\0", b"'", b"x"])
    )
    broken = body[:place] + part + body[place + data.draw(st.integers(0, 2)) :]
    try:
        found = scan(broken, sizes)
    except FieldsError:
        return
    except ValueError:  # of a field's value, which whoever uses it has to parse (or decode)
        with pytest.raises(ValueError, match=r"."):
            expected(broken)
        return
    try:
        told = expected(broken)
    except ValueError:
        return  # no parser takes it: the server behind says so
    assert found == told


@pytest.mark.parametrize("word", [b"Infinity", b"-Infinity", b"NaN"])
def test_what_only_some_parsers_take_is_refused(word):
    with pytest.raises(InvalidRequestError):
        OPENAI.asked_at_once(b'{"model":"m","temperature":' + word + b"}")


@given(objects(), st.data())
def test_a_small_body_is_taken_exactly_where_there_is_one_reading(body, data):
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(body)))
        body = (
            body[:place] + data.draw(st.sampled_from([b'"', b"}", b",", b"'", b"x"])) + body[place:]
        )
    try:
        told = expected(body)
    except ValueError:
        told = None
    is_request = told is not None and isinstance(told.get("model"), str)
    try:
        asked = OPENAI.asked_at_once(body)
    except InvalidRequestError:
        assert told is None or not is_request or not isinstance(told.get("stream", False), bool)
    else:
        assert told is not None
        assert (asked.model, asked.stream) == (told["model"], told.get("stream", False))
