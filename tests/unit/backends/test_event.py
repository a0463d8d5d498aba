import base64
import json
from typing import Any

import pytest

from router.backends.serverless.answer import decode_answer
from router.backends.serverless.event import EventForm
from router.domain.errors import ModelFailedError
from router.domain.request import InferenceRequest
from tests.fakes.builders import make_request


def encode_event(request: InferenceRequest, body: bytes) -> bytes:
    return EventForm(request).event(b"", request.request_id.encode(), body)


def body_in(event: dict[str, Any]) -> bytes:
    """The body as the function sees it, by Python's own codecs."""
    body = event["body"]
    return base64.b64decode(body) if event["isBase64Encoded"] else body.encode()


BODIES = {
    "json": b'{"inputs": [{"data": [1.5, -0.0]}]}',
    "umlauts and emoji": '{"text": "Grüße 🚀"}'.encode(),
    "control characters": b'{"a": "\\u0000"}\x00\x1f\x7f',
    "quotes and backslashes": rb'{"a": "\"\\\""}' * 3,
    "nothing": b"",
    "not UTF-8": b"\xff\xfe{}",
    "a lone surrogate in CESU": b"\xed\xa0\x80",
    "line separators": "\u2028\u2029".encode(),
}


@pytest.mark.parametrize("is_text", [True, False], ids=["as text", "as binary"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_arrive_byte_for_byte(body, is_text):
    event = json.loads(encode_event(make_request(is_text=is_text), body))
    assert body_in(event) == body
    if not is_text:
        assert event["isBase64Encoded"] is True


def test_json_goes_as_text_so_that_it_does_not_grow():
    event = json.loads(encode_event(make_request(), b'{"a": 1}'))
    assert (event["isBase64Encoded"], event["body"]) == (False, '{"a": 1}')


def test_text_that_grows_more_by_escaping_goes_in_base64():
    body = b'"' * 1000
    encoded = encode_event(make_request(), body)
    assert json.loads(encoded)["isBase64Encoded"] is True
    assert len(encoded) < 2000


def test_the_event_has_the_shape_of_payload_format_2():
    request = make_request(
        request_id="id-1",
        path="/v2/models/m%20x/infer",
        query="a=1&b=%20",
        headers={"content-type": "application/json", "x-custom": 'q"uote'},
    )
    event = json.loads(encode_event(request, b"{}"))
    assert event["version"] == "2.0"
    assert event["rawPath"] == "/v2/models/m%20x/infer"
    assert event["rawQueryString"] == "a=1&b=%20"
    assert event["headers"] == {
        "content-type": "application/json",
        "x-custom": 'q"uote',
        "x-request-id": "id-1",
    }
    http = event["requestContext"]["http"]
    assert (http["method"], http["path"]) == ("POST", "/v2/models/m%20x/infer")


def answer(**fields) -> bytes:
    return json.dumps({"statusCode": 200, **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"body": "Grüße"}, "Grüße".encode()),
        ({"body": base64.b64encode(b"\x00\xff").decode(), "isBase64Encoded": True}, b"\x00\xff"),
        ({}, b""),
    ],
    ids=["text", "binary", "no body"],
)
def test_answers_are_decoded_byte_for_byte(fields, body):
    assert decode_answer(answer(**fields)).body == body


def test_headers_are_lower_case_and_cannot_break_the_connection_or_the_response():
    response = decode_answer(
        answer(
            headers={
                "Content-Type": "application/json",
                "X-Number": 7,
                "Content-Length": "999",
                "Transfer-Encoding": "chunked",
                "Connection": "upgrade",
                "X-Split": "a\r\nx-evil: 1",
                "x-b\nad": "1",
            }
        )
    )
    assert response.headers == [("content-type", "application/json"), ("x-number", "7")]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b'"text"',
        b"{}",
        b'{"statusCode": "200"}',
        b'{"statusCode": 99}',
        b'{"statusCode": 100}',
        b'{"statusCode": 600}',
        b'{"statusCode": 200, "body": {"a": 1}}',
        b'{"statusCode": 200, "body": "?", "isBase64Encoded": true}',
        b'{"statusCode": 200, "headers": []}',
        b'{"statusCode": 200, "body": "\\ud800"}',
        b'{"statusCode": 200} trailing',
        b"\xff",
    ],
)
def test_what_is_not_an_http_answer_is_the_functions_failure(payload):
    with pytest.raises(ModelFailedError, match="the function's answer"):
        decode_answer(payload)
