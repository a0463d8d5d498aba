"""A platform that runs our function front behind a URL, with a guard such as the real one has.

`guard` sees each request first and may answer it; `answers` are given instead of the function's,
one each. `calls` and `most_in_flight` tell what happened.
"""

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from workers.function_environment import FunctionEnvironment

Guard = Callable[[web.Request, bytes], web.Response | None]


@dataclass
class UrlPlatform:
    """A running platform; `function` is None for one that only guards and gives `answers`."""

    function: FunctionEnvironment | None = None
    prefix: str = ""
    guard: Guard = lambda _request, _body: None
    answers: list[web.Response] = field(default_factory=list)
    gate: asyncio.Event | None = None
    url: str = ""
    calls: list[web.Request] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if (refusal := self.guard(request, body)) is not None:
            return refusal
        self.calls.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        async with self.arrived:
            self.arrived.notify_all()
        try:
            if self.gate is not None:
                await self.gate.wait()
            return self.answers.pop(0) if self.answers else await self._answer(request, body)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, body: bytes) -> web.Response:
        assert self.function is not None, "no answer is left"
        path = request.rel_url.raw_path.removeprefix(self.prefix)
        reply = await asyncio.to_thread(
            self.function.answer, request.method, path, request.headers, lambda: body
        )
        return web.Response(body=reply.body, status=reply.status, headers=dict(reply.headers))

    async def wait_for_calls(self, count: int) -> None:
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.calls) >= count)


@asynccontextmanager
async def running(
    platform: UrlPlatform, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[UrlPlatform]:
    """Serve the platform on a free port until the block ends."""
    async with serving(platform.handle, ssl_context) as url:
        platform.url = url
        yield platform


@asynccontextmanager
async def serving(
    handle: Callable[[web.Request], object], ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve every path with one handler; gives the URL."""
    application = web.Application(client_max_size=256 << 20)
    application.router.add_route("*", "/{path:.*}", handle)  # type: ignore[arg-type]
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
    await site.start()
    try:
        scheme = "https" if ssl_context is not None else "http"
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# -- guards ----------------------------------------------------------------------------------------


def host_guard(host: str) -> Guard:
    """Knative's ingress: an unknown Host is a 404 of its own."""

    def guard(request: web.Request, _body: bytes) -> web.Response | None:
        return None if request.headers["host"] == host else web.Response(status=404)

    return guard


def key_guard(*keys: str) -> Guard:
    """Azure's front: a wrong or missing function key is a 401 without a body."""

    def guard(request: web.Request, _body: bytes) -> web.Response | None:
        is_known = request.headers.get("x-functions-key") in keys
        return None if is_known else web.Response(status=401)

    return guard


def token_guard(issuer: "MetadataServer") -> Guard:
    """Cloud Run's front: audience, signature and expiry of the ID token count."""

    def guard(request: web.Request, _body: bytes) -> web.Response | None:
        audience = f"http://{request.headers['host']}"
        found = request.headers.get("x-serverless-authorization", "")
        if issuer.is_valid(found.removeprefix("Bearer "), audience):
            return None
        challenge = {"www-authenticate": 'Bearer error="invalid_token"'}
        return web.Response(status=401, text="<html>", content_type="text/html", headers=challenge)

    return guard


def signature_guard(keys: dict[str, Credentials]) -> Guard:
    """AWS's front: the signature is computed again, by botocore, with the caller's secret."""

    def guard(request: web.Request, body: bytes) -> web.Response | None:
        kind = _signature_problem(request, body, keys)
        if kind is None:
            return None
        headers = {"x-amzn-ErrorType": kind}
        return web.json_response({"message": "echoes a secret"}, status=403, headers=headers)

    return guard


def _signature_problem(
    request: web.Request, body: bytes, keys: dict[str, Credentials]
) -> str | None:
    given = request.headers.get("authorization", "")
    if not given.startswith("AWS4-HMAC-SHA256 "):
        return "MissingAuthenticationTokenException"
    parts = dict(part.split("=", 1) for part in given.partition(" ")[2].split(", "))
    access_key, _day, region, service, _end = parts["Credential"].split("/")
    credentials = keys.get(access_key)
    if credentials is None:
        return "UnrecognizedClientException"
    if credentials.token != request.headers.get("x-amz-security-token"):
        return "ExpiredTokenException"
    again = AWSRequest(request.method, f"http://{request.host}{request.raw_path}", data=body)
    for name in parts["SignedHeaders"].split(";"):
        again.headers.add_header(name, request.headers[name])
    again.context["timestamp"] = request.headers["x-amz-date"]
    auth = SigV4Auth(credentials, service, region)
    wanted = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
    return None if wanted == parts["Signature"] else "InvalidSignatureException"


# -- Google's metadata server ----------------------------------------------------------------------


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class MetadataServer:
    """Issues ID tokens as the metadata server does; `lifetime_s` is how long they are valid."""

    lifetime_s: float = 3600.0
    secret: bytes = b"known to the issuer and the platform only"
    audiences: list[str] = field(default_factory=list)
    is_up: bool = True

    async def handle(self, request: web.Request) -> web.Response:
        if request.headers.get("metadata-flavor") != "Google":
            return web.Response(status=403)
        if not self.is_up:
            return web.Response(status=503)
        assert request.path.endswith("/instance/service-accounts/default/identity")
        self.audiences.append(request.query["audience"])
        token = self.token(request.query["audience"])
        return web.Response(text=token, headers={"Metadata-Flavor": "Google"})

    def token(self, audience: str) -> str:
        """A signed token for the audience."""
        claims = {"aud": audience, "exp": time.time() + self.lifetime_s, "n": len(self.audiences)}
        signed = f"{_encode(b'{}')}.{_encode(json.dumps(claims).encode())}"
        return f"{signed}.{self._signature(signed)}"

    def is_valid(self, token: str, audience: str) -> bool:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature, self._signature(signed)):
            return False
        claims = json.loads(urlsafe_b64decode(signed.partition(".")[2] + "=="))
        return bool(claims["aud"] == audience and claims["exp"] > time.time())

    def _signature(self, signed: str) -> str:
        return _encode(hmac.new(self.secret, signed.encode(), hashlib.sha256).digest())


async def environment(repository: Path, model: str) -> FunctionEnvironment:
    """Our function's environment with one model loaded."""
    variables = {"MODEL_REPOSITORY": str(repository), "MODEL_NAME": model}
    return await asyncio.to_thread(FunctionEnvironment, variables)
