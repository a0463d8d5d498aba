"""One reading of the fields that decide, whatever a parser behind the gateway makes of the body."""

import json

import pytest

from router.domain.errors import InvalidRequestError
from router.gateway.protocols.json_fields import (
    FieldsError,
    find_fields,
    find_fields_in_turns,
    parts_of,
)
from router.gateway.protocols.openai import OPENAI

NAMES = frozenset({"model", "stream"})
LONG = b'"' + b"x" * 200_000 + b'"'
TWO_READINGS = {
    "another case after it": b'{"model":"m","Model":"secret"}',
    "another case before it": b'{"MODEL":"secret","model":"m"}',
    "only another case": b'{"Model":"m"}',
    "twice": b'{"model":"m","model":"secret"}',
    "twice the same": b'{"model":"m","model":"m"}',
    "an escape": rb'{"model":"m","mod\u0065l":"secret"}',
    "an escape before it": rb'{"\u006dodel":"secret","model":"m"}',
    "an escaped other case": rb'{"model":"m","mod\u0045l":"secret"}',
    "a name that C ends early": rb'{"model":"m","model\u0000x":"secret"}',
    "stream in another case": b'{"model":"m","stream":false,"Stream":true}',
    "stream in another case alone": b'{"model":"m","STREAM":true}',
    "stream twice": b'{"model":"m","stream":false,"stream":true}',
    "stream with a long s": '{"model":"m","\N{LATIN SMALL LETTER LONG S}tream":true}'.encode(),
    "stream with a ligature": '{"model":"m","\N{LATIN SMALL LIGATURE ST}ream":true}'.encode(),
    "a comment": b'{"model":"m"/*,"model":"secret"*/}',
    "a comment to the end of the line": b'{"model":"m",//"\n"model":"secret"}',
    "single quotes": b'{"model":"m",\'model\':"secret"}',
    "no quotes": b'{"model":"m",model:"secret"}',
    "two objects": b'{"model":"m"}{"model":"secret"}',
    "two lines": b'{"model":"m"}\n{"model":"secret"}',
    "a list": b'[{"model":"m"}]',
    "a comma too many": b'{"model":"m",}',
    "no comma": b'{"model":"m" "model":"secret"}',
    "no comma after a number": b'{"n":1 "model":"secret"}',
    "a colon too many": b'{"n":1:"model","model":"m"}',
    "a name that is none": b'{"model":"m",1:2}',
    "a line in a string": b'{"model":"m","x":"\n","model":"secret"}',
    "an escape that does not exist": rb'{"model":"m","x":"\q"}',
    "a NUL": b'{"model":"m"}\0{"model":"secret"}',
    "a byte order mark": b'\xef\xbb\xbf{"model":"m"}',
    "UTF-16": '{"model":"m"}'.encode("utf-16"),
    "a name that is not UTF-8": b'{"model":"m","mod\xffel":"secret"}',
    "half a surrogate in a name": rb'{"model":"m","mod\ud800el":"secret"}',
    "a bracket too many": b'{"model":"m"}}',
    "no end": b'{"model":"m"',
    "no end of a string": b'{"model":"m","x":"',
    "an end in an escape": b'{"model":"m","x":"\\',
    "another end": b'{"model":"m"]',
    "nothing": b"",
    "nested lists": b'{"model":"m","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "nested objects": b'{"model":"m","x":' + b'{"a":' * 700 + b"1" + b"}" * 701,
    "nested without an end": b'{"model":"m","x":' + b"[" * 4000,
    "many fields": b"{%b}" % b",".join(b'"%d":1' % n for n in range(5000)),
    "a long model": b'{"model":"' + b"m" * 100_000 + b'"}',
    "a model that is no text": b'{"model":["m"]}',
    "no model": b"{}",
    "a model deeper in": b'{"x":{"model":"m"}}',
}
ONE_READING = {
    "an escaped name": rb'{"mod\u0065l":"m"}',
    "an escaped value": rb'{"model":"\u006d"}',
    "a model deeper in": b'{"x":{"model":"secret","Model":"x"},"model":"m"}',
    "names in a text": b'{"model":"m","x":"\\",\\"model\\":\\"secret\\""}',
    "a text that ends in a backslash": b'{"x":"\\\\","model":"m","y":"\\\\\\\\"}',
    "letters that look alike": (
        '{"model":"m","mod\\u00e9l":"secret","mod\N{CYRILLIC SMALL LETTER IE}l":1}'.encode()
    ),
    "space": b' \t\r\n{ "model" \n:\t"m" , "x" : [ ] }\n ',
    "every kind of value": b'{"a":null,"b":true,"c":false,"d":-1.5E+7,"model":"m","e":{}}',
    "nested": b'{"model":"m","x":' + b"[" * 100 + b"]" * 100 + b"}",
}


def long_form(body: bytes) -> bytes:
    """The same object with so long a field before the others that it is read in turns."""
    place = body.find(b"{") + 1
    comma = b"" if body[place:].lstrip().startswith(b"}") else b","
    return body[:place] + b'"long":' + LONG + comma + body[place:] if place else body


@pytest.mark.parametrize("is_long", [False, True], ids=["small", "long"])
@pytest.mark.parametrize("body", TWO_READINGS.values(), ids=TWO_READINGS)
async def test_a_body_with_two_readings_is_refused(body, is_long):
    with pytest.raises(InvalidRequestError, match="not a valid request"):
        await OPENAI.asked(long_form(body) if is_long else body, {})


@pytest.mark.parametrize("is_long", [False, True], ids=["small", "long"])
@pytest.mark.parametrize("body", ONE_READING.values(), ids=ONE_READING)
async def test_a_body_with_one_reading_is_read(body, is_long):
    whole = long_form(body) if is_long else body
    assert json.loads(whole)["model"] == "m"
    asked = await OPENAI.asked(whole, {})
    assert (asked.model, asked.stream) == ("m", False)
    assert asked.renamed is not None
    changed = json.loads(await asked.renamed(whole, 'n"'))
    assert changed == {**json.loads(whole), **dict.fromkeys(["model"], 'n"')}
    assert list(changed) == list(json.loads(whole))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_parts_of_any_size_are_read_alike(size):
    body = rb'{"a":"\\\"}{","model" : "\u006d\\" ,"b":[{"model":1},"\\"],"stream":true }'
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    assert await find_fields_in_turns(parts, NAMES) == find_fields(body, NAMES)
    assert find_fields(body, NAMES)["model"].value == rb'"\u006d\\"'


def test_parts_are_bounded_and_whole():
    assert b"".join(parts_of(LONG)) == LONG
    assert max(map(len, parts_of(LONG))) == 64 * 1024


def test_an_error_says_what_is_wrong():
    with pytest.raises(FieldsError, match="model must be there once, and written so"):
        find_fields(TWO_READINGS["another case after it"], NAMES)
