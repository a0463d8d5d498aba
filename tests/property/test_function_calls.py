"""Calls from templates are the calls that would be made one by one, and answers mean what they say.

Signatures are held against botocore's, events against each other however a request's head is
divided, answers against the complete parser.
"""

import datetime as dt
import json
from collections.abc import Mapping
from unittest.mock import patch

from botocore import auth as botocore_auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from router.backends.serverless.answer import AnswerReader, decode_answer
from router.backends.serverless.event import EventForm
from router.backends.serverless.sigv4 import AwsCredentials, Scope, Signable, Signer
from router.domain.errors import ModelFailedError
from tests.fakes.builders import make_request

HOST = "lambda.eu-central-1.amazonaws.com"
CONSTANT = (("content-type", "application/json"), ("x-amz-log-type", "Tail"))

secrets = st.text("abcXYZ019+/=", min_size=1, max_size=40)
segments = st.text("abc-_.~%20", min_size=1, max_size=8)
paths = st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts))
moments = st.integers(1_000_000_000, 4_000_000_000)


def botocores(target: str, body: bytes, credentials: AwsCredentials, at: int) -> Mapping[str, str]:
    request = AWSRequest("POST", f"https://{HOST}{target}", data=body)
    request.headers = HTTPHeaders()
    for name, value in (*CONSTANT, ("host", HOST)):
        request.headers.add_header(name, value)
    found = Credentials(credentials.access_key, credentials.secret_key, credentials.token or None)
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    with patch.object(botocore_auth, "get_current_datetime", lambda *_, **__: moment):
        botocore_auth.SigV4Auth(found, "lambda", "eu-central-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(
    secret=secrets, token=st.just("") | secrets, target=paths,
    calls=st.lists(st.tuples(st.binary(max_size=64), moments), min_size=1, max_size=4),
)  # fmt: skip
def test_one_signer_signs_call_after_call_as_botocore_does(
    secret: str, token: str, target: str, calls: list[tuple[bytes, int]]
) -> None:
    credentials = AwsCredentials("AKIDEXAMPLE", secret, token)
    signer = Signer(Signable("POST", HOST, target, CONSTANT), credentials, Scope("eu-central-1"))
    for body, at in calls:
        lines = signer.lines(body, at + 0.25).decode().splitlines()
        expected = botocores(target, body, credentials, at)
        assert lines
        assert all(expected[name] == value for name, value in (ln.split(": ", 1) for ln in lines))


names = st.text("abcdef-", min_size=1, max_size=5)
values = st.text(
    st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=["Cs"]),
    max_size=8,
)
headers = st.lists(st.tuples(names, values.map(str.strip)), max_size=6)


@given(
    headers=headers, shared=st.integers(0, 6), body=st.binary(max_size=40), is_text=st.booleans()
)
@example(headers=[("a", "1"), ("a", "2")], shared=0, body=b"{}", is_text=True)
def test_an_event_is_the_same_however_its_headers_are_given(
    headers: list[tuple[str, str]], shared: int, body: bytes, is_text: bool
) -> None:
    """Those that all requests share are written once, the others come as lines."""
    together: dict[str, str] = {}
    for name, value in headers:
        together[name] = f"{together[name]}, {value}" if name in together else value
    first = dict(list(together.items())[:shared])
    lines = "".join(f"{n.upper()}: {v}\r\n" for n, v in headers if n not in first).encode()

    whole = EventForm(make_request(headers=together, is_text=is_text))
    divided = EventForm(make_request(headers=first, is_text=is_text))
    expected = json.loads(whole.event(b"", b"r-1", body))
    assert json.loads(divided.event(lines, b"r-1", body)) == expected
    assert expected["headers"] == {**together, "x-request-id": "r-1"}


keys = st.sampled_from(["statusCode", "headers", "body", "isBase64Encoded", "other"])
SOME_VALUES: list[object] = [
    200, 204, 404, 99, True, False, None, "", "text", '"', "\\", "body", "AP8=",
    {"content-type": "a/b"}, {"body": "x"}, {"x": '"body":"'}, [],
]  # fmt: skip
some_values = st.sampled_from(SOME_VALUES)
pairs = st.lists(st.tuples(keys, some_values), max_size=6)


def written(members: list[tuple[str, object]], *, blank: bool) -> bytes:
    """JSON of these members, in this order and as often as they are given."""
    colon = ": " if blank else ":"
    texts = (f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in members)
    return ("{" + ",".join(texts) + "}").encode()


def read(reader: AnswerReader, payload: bytes) -> object:
    try:
        head, body = reader.read(payload)
    except ModelFailedError:
        return "none"
    return head.status, list(head.headers), body


def parsed(payload: bytes) -> object:
    try:
        found = decode_answer(payload)
    except ModelFailedError:
        return "none"
    return found.status, found.headers, found.body


@given(
    members=pairs, texts=st.lists(st.text(max_size=8) | st.just('","x":"'), min_size=3, max_size=6),
    blank=st.booleans(), cuts=st.integers(0, 12),
)  # fmt: skip
@example(
    members=[("statusCode", 200), ("body", ""), ("body", "b")], texts=["a"] * 3, blank=False, cuts=0
)
@example(
    members=[("statusCode", 200), ("headers", {"body": "x"})], texts=["a"] * 3, blank=False, cuts=0
)
def test_an_answer_means_what_the_complete_parser_says(
    members: list[tuple[str, object]], texts: list[str], blank: bool, cuts: int
) -> None:
    """Whatever was learned from those before it; also one that is cut, or has more behind it."""
    reader = AnswerReader()
    for text in texts:
        varied = [
            (name, text if name == "body" and value != [] else value) for name, value in members
        ]
        payload = written(varied, blank=blank)
        for given_now in (payload, payload[: len(payload) - cuts], payload + b"}", payload[:-1]):
            assert read(reader, given_now) == parsed(given_now)


def test_it_is_read_by_what_was_learned() -> None:
    reader = AnswerReader()
    answers = [reader.read(b'{"statusCode":200,"body":"%d"}' % number) for number in range(4)]
    assert [body for _, body in answers] == [b"0", b"1", b"2", b"3"]
    assert answers[3][0] is answers[2][0], "one head for all that are alike"
