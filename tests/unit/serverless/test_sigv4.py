"""Our signatures are botocore's, byte for byte, and no secret shows."""

import datetime as dt

import pytest
from botocore import auth as botocore_auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from router.backends.serverless.sigv4 import AwsCredentials, Scope, Signable, Signer

NOW = dt.datetime(2026, 11, 24, 3, 4, 5, tzinfo=dt.UTC).timestamp()
HOST = "lambda.eu-central-1.amazonaws.com"
INVOKE = "/2015-03-31/functions/f/invocations"
STREAM = "/2021-11-15/functions/f/response-streaming-invocations"
ARN = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A1%3Afunction%3Af/invocations"

Case = tuple[str, str, str, tuple[tuple[str, str], ...], bytes]
CASES: dict[str, Case] = {
    "a plain invocation": ("POST", HOST, INVOKE, (), b"{}"),
    "a function by its ARN": ("POST", HOST, ARN, (), b"{}"),
    "a streamed invocation": ("POST", HOST, f"{STREAM}?Qualifier=live", (), b"{}"),
    "a qualifier": ("POST", HOST, f"{INVOKE}?Qualifier=live", (), b"{}"),
    "the latest version": ("POST", HOST, f"{INVOKE}?Qualifier=%24LATEST", (), b"{}"),
    "parameters out of order": ("GET", HOST, "/a?b=2&a=1&B=0&a=0", (), b""),
    "a parameter without value": ("GET", HOST, "/a?b&a=", (), b""),
    "an empty query": ("GET", HOST, "/a?", (), b""),
    "no path but a slash": ("GET", HOST, "/", (), b""),
    "a slash at the end": ("GET", HOST, "/v2/models/", (), b""),
    "dots and empty segments": ("GET", HOST, "/a/./b//../c", (), b""),
    "more dots than segments": ("GET", HOST, "/../../a/..", (), b""),
    "an encoded path": ("POST", HOST, "/v2/models/a%2Fb%20c~d/infer", (), b"x"),
    "headers in any case": ("POST", HOST, INVOKE, (("X-Amz-Log-Type", "Tail"),), b"{}"),
    "spaces in a value": ("POST", HOST, INVOKE, (("x-amz-meta", "  a   b  "),), b"{}"),
    "a header given twice": ("GET", HOST, "/", (("x-amz-a", "2"), ("x-amz-a", "1")), b""),
    "a host with a port": ("POST", "127.0.0.1:4566", INVOKE, (), b"{}"),
    "binary bytes": ("POST", HOST, INVOKE, (), bytes(range(256)) * 100),
    "a function URL": ("POST", "abc.lambda-url.eu-central-1.on.aws", "/v2/m", (), b"\0"),
}  # fmt: skip


def botocores(case: Case, credentials: AwsCredentials, scope: Scope) -> dict[str, str]:
    """What botocore puts into the headers it adds, its clock standing at NOW."""
    method, host, target, headers, body = case
    request = AWSRequest(method, f"https://{host}{target}", data=body)
    request.headers = HTTPHeaders()
    for name, value in headers:
        request.headers.add_header(name, value)
    request.headers.add_header("host", host)
    auth = botocore_auth.SigV4Auth(
        Credentials(credentials.access_key, credentials.secret_key, credentials.token or None),
        scope.service,
        scope.region,
    )
    auth.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def ours(case: Case, credentials: AwsCredentials, scope: Scope) -> dict[str, str]:
    """The headers that we add at NOW."""
    method, host, target, headers, body = case
    signer = Signer(Signable(method, host, target, headers), credentials, scope)
    lines = signer.lines(body, NOW).decode()
    return dict(line.split(": ", 1) for line in lines.splitlines())


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch):
    moment = dt.datetime.fromtimestamp(NOW, dt.UTC)
    monkeypatch.setattr(botocore_auth, "get_current_datetime", lambda *_, **__: moment)


@pytest.mark.parametrize("token", ["", "session/token+="], ids=["a key", "a temporary key"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_signature_is_botocores(case, token):
    credentials, scope = AwsCredentials("AKIDEXAMPLE", "se/cr+et", token), Scope("eu-central-1")
    expected = botocores(case, credentials, scope)
    signed = ours(case, credentials, scope)
    assert signed["authorization"] == expected["authorization"]
    assert signed["x-amz-date"] == expected["x-amz-date"]
    assert signed.get("x-amz-security-token") == expected.get("x-amz-security-token")


@pytest.mark.parametrize(
    "scope", [Scope("us-east-1"), Scope("eu-central-1", "sts")], ids=["region", "service"]
)
def test_the_scope_counts(scope):
    case = CASES["a plain invocation"]
    credentials = AwsCredentials("AKIDEXAMPLE", "secret")
    signed = ours(case, credentials, scope)
    assert signed["authorization"] == botocores(case, credentials, scope)["authorization"]


def test_the_body_counts():
    credentials, scope = AwsCredentials("A", "s"), Scope("eu-central-1")
    one, other = (ours(("POST", HOST, "/", (), body), credentials, scope) for body in (b"1", b"2"))
    assert one["authorization"] != other["authorization"]


def test_credentials_do_not_show_their_secrets():
    shown = repr(AwsCredentials("AKID", "the-secret", "the-token"))
    assert "AKID" in shown
    assert "the-secret" not in shown
    assert "the-token" not in shown
