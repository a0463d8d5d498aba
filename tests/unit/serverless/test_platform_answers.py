"""Whose answer it is: platforms by the words that they are known for, all else is the model's."""

import pytest

from router.backends.serverless.platform_answers import platform_error
from router.domain.errors import (
    AttemptError,
    CallRefusedError,
    EncodedTooLargeError,
    ModelFailedError,
    PlatformRefusedError,
    TimeLimitError,
    UpstreamBrokenError,
    UpstreamRejectedError,
)

Answer = tuple[int, dict[str, str], bytes]

FLASK = b"<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n"
GUNICORN = b"<html>\n  <head>\n    <title>Internal Server Error</title>\n  </head>\n"
MODELS: dict[str, Answer] = {
    "worded as ours": (500, {}, b'{"error": "no such model"}'),
    "worded as OpenAI's": (503, {}, b'{"error": {"message": "overloaded"}}'),
    "Flask": (500, {"content-type": "text/html"}, FLASK),
    "gunicorn": (500, {"content-type": "text/html"}, GUNICORN),
    "FastAPI": (500, {"content-type": "text/plain"}, b"Internal Server Error"),
    "FastAPI's 404": (404, {}, b'{"detail":"Not Found"}'),
    "Flask's 404": (404, {}, FLASK.replace(b"500 Internal Server Error", b"404 Not Found")),
    "a refusal of its own": (403, {}, b"you may not see this"),
    "a refusal of its own, with a challenge": (
        401, {"www-authenticate": "Bearer"}, b'{"error": "who are you?"}'),
    "no content": (204, {}, b""),
    "not modified": (304, {}, b""),
    "a method it does not know": (405, {}, b""),
    "an error of validation": (422, {}, b'{"detail": []}'),
    "its own throttling": (429, {"retry-after": "3"}, b'{"detail": "slow down"}'),
    "a teapot": (599, {}, b"\x00\xff"),
    "a tensor": (500, {}, b"\x00" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("answer", MODELS.values(), ids=MODELS)
def test_what_is_the_models(answer: Answer) -> None:
    assert platform_error(*answer, has_credentials=True) is None


GOOGLE = (
    b'<html><head>\n<meta http-equiv="content-type" content="text/html;charset=utf-8">\n'
    b"<title>%s</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n<h1>Error</h1>\n"
)
NGINX = b"<html>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n<hr><center>nginx/1.27.0</center>"
AMZN = "x-amzn-errortype"
PLATFORMS: dict[str, tuple[Answer, type[AttemptError]]] = {
    "Lambda refuses the signature": (
        (403, {AMZN: "AccessDeniedException"}, b'{"Message":"Forbidden"}'), PlatformRefusedError),
    "Lambda throttles": (
        (429, {AMZN: "TooManyRequestsException"}, b"{}"), UpstreamRejectedError),
    "Lambda is at fault": ((500, {AMZN: "ServiceException"}, b"{}"), UpstreamBrokenError),
    "a Function URL whose handler raised": (
        (502, {"x-amzn-requestid": "1"}, b"Internal Server Error"), ModelFailedError),
    "API Gateway throttles": (
        (429, {}, b'{"message":"Too Many Requests"}'), UpstreamRejectedError),
    "Google refuses the token": (
        (401, {"www-authenticate": "Bearer"}, b"<html>"), PlatformRefusedError),
    "Google misses a token": ((403, {}, GOOGLE % b"403 Forbidden"), PlatformRefusedError),
    "Google knows no such service": ((404, {}, GOOGLE % b"Page not found"), CallRefusedError),
    "Google throttles": ((429, {}, b"Rate exceeded."), UpstreamRejectedError),
    "Google's front fails": ((500, {}, GOOGLE % b"500 Server Error"), UpstreamBrokenError),
    "Google's environment does not start": (
        (503, {}, b"Service Unavailable"), UpstreamRejectedError),
    "Google's time limit": ((504, {}, b"upstream request timeout"), TimeLimitError),
    "Azure refuses the key": ((401, {}, b""), PlatformRefusedError),
    "Azure's app is stopped": (
        (403, {}, b"<title>Web App - Unavailable</title>"), PlatformRefusedError),
    "Azure knows no such route": ((404, {}, b""), CallRefusedError),
    "Azure's host does not run": (
        (503, {}, b"Function host is not running."), UpstreamRejectedError),
    "Azure's front has waited long enough": (
        (500, {}, b"The web server failed to respond within the specified time."), TimeLimitError),
    "an Azure or Knative handler raised": ((500, {}, b""), ModelFailedError),
    "Istio refuses": ((403, {}, b"RBAC: access denied"), PlatformRefusedError),
    "Envoy finds nobody": ((503, {}, b"no healthy upstream"), UpstreamRejectedError),
    "an ingress without the route": ((404, {}, b"404 page not found\n"), CallRefusedError),
    "nginx without the route": ((404, {}, NGINX % b"404 Not Found"), CallRefusedError),
    "nginx before a dead server": ((502, {}, NGINX % b"502 Bad Gateway"), UpstreamBrokenError),
    "nginx before a slow server": ((504, {}, NGINX % b"504"), TimeLimitError),
    "a proxy's limit": ((413, {}, NGINX % b"413"), EncodedTooLargeError),
    "a proxy without words": ((503, {}, b""), UpstreamRejectedError),
    "a login page": ((302, {"location": "https://login"}, b""), CallRefusedError),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "error"), PLATFORMS.values(), ids=PLATFORMS)
def test_what_is_the_platforms(answer: Answer, error: type[AttemptError]) -> None:
    assert type(platform_error(*answer, has_credentials=True)) is error


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [b"", b"anything"], ids=["empty", "text"])
def test_without_credentials_a_refusal_is_the_clients_business(status: int, body: bytes) -> None:
    headers = {"www-authenticate": "Basic"}
    assert platform_error(status, headers, body, has_credentials=False) is None


def test_the_platform_says_when_to_come_back() -> None:
    error = platform_error(429, {"retry-after": "3"}, b"", has_credentials=False)
    assert isinstance(error, UpstreamRejectedError)
    assert error.retry_after_s == 3.0
