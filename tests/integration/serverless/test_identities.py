"""Identities without keys: Google's workload identity federation, Azure's managed identities."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth import jwt

from router.backends.serverless.azure_federation import Workload, WorkloadTokens
from router.backends.serverless.azure_identity import IdentitySource, IdentityTokens
from router.backends.serverless.google_files import FileTokens
from router.backends.serverless.google_tokens import MetadataTokens
from router.backends.serverless.refresher import CredentialError, Fetched
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.url_platform import (
    Guard,
    MetadataServer,
    UrlPlatform,
    running,
    serving,
    token_guard,
)
from tests.integration.harness import Harness


class Federation:
    """Google's token exchange and IAM: a subject's token becomes an ID token of an account."""

    def __init__(self, issuer: MetadataServer) -> None:
        self.issuer = issuer
        self.subjects: list[str] = []
        self.status = 200

    async def handle(self, request: web.Request) -> web.Response:
        if request.path == "/v1/token":
            form = await request.post()
            self.subjects.append(str(form["subject_token"]))
            return web.json_response(
                {"access_token": "federated", "expires_in": 3600, "token_type": "Bearer",
                 "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
            )  # fmt: skip
        assert request.path == f"{ACCOUNT}:generateIdToken"
        assert request.headers["authorization"] == "Bearer federated"
        if self.status != 200:
            return web.json_response({"error": "tells of the account"}, status=self.status)
        return web.json_response({"token": self.issuer.token((await request.json())["audience"])})


ACCOUNT = "/v1/projects/-/serviceAccounts/router@project.iam.gserviceaccount.com"


def federated(url: str, folder: Path, **changes: Any) -> Path:
    """What `gcloud iam workload-identity-pools create-cred-config` writes."""
    (folder / "subject").write_text("subject-1")
    document = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{url}/v1/token",
        "credential_source": {"file": str(folder / "subject")},
        "service_account_impersonation_url": f"{url}{ACCOUNT}:generateAccessToken",
        **changes,
    }
    (folder / "wif.json").write_text(json.dumps(document))
    return folder / "wif.json"


async def test_workload_identity_federation_gives_tokens(tmp_path: Path) -> None:
    issuer = MetadataServer()
    federation = Federation(issuer)
    platform = UrlPlatform(guard=token_guard(issuer))
    platform.answers.append(web.json_response({"outputs": []}))
    async with serving(federation.handle) as google, running(platform):
        await asyncio.to_thread(federated, google, tmp_path)
        serverless = {
            "kind": "google_function",
            "url": platform.url,
            "credentials_file": "wif.json",
        }
        async with Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway:
            reply = await gateway.infer()
    assert reply.status == 200, reply.body
    assert federation.subjects == ["subject-1"]


def own_key(url: str) -> dict[str, str]:
    """A service account's key, whose tokens come from that server."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {
        "type": "service_account",
        "client_email": "base@project.iam.gserviceaccount.com",
        "private_key": pem,
        "token_uri": url,
    }


def own_login(url: str) -> dict[str, str]:
    """What `gcloud auth application-default login` keeps of a person."""
    del url
    return {
        "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"
    }  # fmt: skip


@pytest.mark.parametrize("source", [own_key, own_login], ids=["with a key", "with a login"])
async def test_a_service_account_is_impersonated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Callable[[str], dict[str, str]]
) -> None:
    """With the file that gcloud writes for `--impersonate-service-account`."""
    issuer = MetadataServer()
    asked: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        if request.path == "/token":
            asked.append((await request.post())["grant_type"])
            return web.json_response({"access_token": "own", "expires_in": 3600})
        assert request.path == f"{ACCOUNT}:generateIdToken"
        assert request.headers["authorization"] == "Bearer own"
        wanted = await request.json()
        asked.append(wanted["delegates"])
        return web.json_response({"token": issuer.token(wanted["audience"])})

    async with serving(handle) as google:
        monkeypatch.setattr(
            "google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{google}/token"
        )
        file = await asyncio.to_thread(
            federated, google, tmp_path, type="impersonated_service_account",
            source_credentials=source(f"{google}/token"), delegates=["between"],
        )  # fmt: skip
        token = (await FileTokens(file, "https://x").fetch()).value
    assert jwt.decode(token, verify=False)["aud"] == "https://x"
    assert asked[1:] == [["between"]]
    assert asked[0] in {"refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"}


BAD_FILES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no service account": ({"service_account_impersonation_url": ""}, 200, "no service account"),
    "another type": ({"type": "authorized_user"}, 200, "not of type service_account, external"),
    "nobody to impersonate with": (
        {"type": "impersonated_service_account", "source_credentials": {"type": "gdch"}},
        200, "source_credentials are neither"),
    "no source": ({"type": "impersonated_service_account"}, 200, "KeyError"),
    "no subject": ({"credential_source": {"file": "/nowhere/subject"}}, 200, "RefreshError"),
    "IAM refuses": ({}, 403, "status 403"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "status", "told"), BAD_FILES.values(), ids=BAD_FILES)
async def test_why_federation_gives_no_token(
    tmp_path: Path, changes: dict[str, Any], status: int, told: str
) -> None:
    federation = Federation(MetadataServer())
    federation.status = status
    async with serving(federation.handle) as google:
        file = await asyncio.to_thread(federated, google, tmp_path, **changes)
        with pytest.raises(CredentialError, match=told) as caught:
            await FileTokens(file, "https://x").fetch()
    assert "account of" not in str(caught.value)
    assert "tells of" not in str(caught.value)


# -- Google's metadata server ---------------------------------------------------------------------


FLAVOR = {"metadata-flavor": "Google"}
NO_TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "a proxy's page": ({"text": MetadataServer().token("https://x")}, "not a metadata server"),
    "no service account": ({"status": 404, "headers": FLAVOR}, "status 404"),
    "no token": ({"text": "<html>", "headers": FLAVOR}, "not an ID token"),
    "no claims": ({"text": "a.e30.c", "headers": FLAVOR}, "not an ID token"),
}


@pytest.mark.parametrize(("answer", "told"), NO_TOKENS.values(), ids=NO_TOKENS)
async def test_what_answers_must_be_a_metadata_server(answer: dict[str, Any], told: str) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(**answer)

    client = UpstreamClient(clock=time.monotonic)
    try:
        async with serving(handle) as url:
            tokens = MetadataTokens(client, parse_address(url), "https://x")
            with pytest.raises(CredentialError, match=told):
                await tokens.fetch()
    finally:
        await client.close()


# -- Azure's managed identities --------------------------------------------------------------------


class Identities:
    """The metadata service of a machine, or that of App Service: it wants a secret."""

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self.lifetime_s = 3600.0
        self.asked: list[dict[str, str]] = []
        self.answer: Any = None

    async def handle(self, request: web.Request) -> web.Response:
        proof = request.headers.get("x-identity-header" if self.secret else "metadata")
        if proof != (self.secret or "true"):
            return web.json_response({"error": "tells of the identity"}, status=400)
        self.asked.append({"path": request.path, **request.query})
        expires = {"expires_on": str(int(time.time() + self.lifetime_s))}
        token = {"access_token": f"token-{len(self.asked)}", **expires}
        return web.json_response(token if self.answer is None else self.answer)


def bearer_guard(*tokens: str) -> Guard:
    """Azure's authentication: a wrong token is a 401 without a body."""

    def guard(request: web.Request, _body: bytes) -> web.Response | None:
        is_known = request.headers.get("authorization", "").removeprefix("Bearer ") in tokens
        return None if is_known else web.Response(status=401)

    return guard


@pytest.mark.parametrize("secret", ["", "the-header"], ids=["a virtual machine", "App Service"])
async def test_a_managed_identitys_token_goes_with_each_call(tmp_path: Path, secret: str) -> None:
    identities = Identities(secret)
    platform = UrlPlatform(guard=bearer_guard("token-1"))
    platform.answers = [web.json_response({"outputs": []}) for _ in range(2)]
    async with serving(identities.handle) as url, running(platform):
        identity = {"resource": "api://models", "client_id": "c-1", "secret": secret}
        serverless = {
            "kind": "azure_function",
            "url": platform.url,
            "identity": {**identity, "url": f"{url}/msi/token"},
        }
        async with Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway:
            replies = [await gateway.infer(authorization="Bearer theirs") for _ in range(2)]
            config = (await gateway.ask("GET", "/v1/config")).body.decode()
    assert {reply.status for reply in replies} == {200}
    version = "2019-08-01" if secret else "2018-02-01"
    asked = {"path": "/msi/token", "api-version": version, "resource": "api://models"}
    assert identities.asked == [{**asked, "client_id": "c-1"}]
    assert "the-header" not in config


async def test_a_token_is_renewed_before_it_expires(tmp_path: Path) -> None:
    identities = Identities()
    identities.lifetime_s = 2.0
    platform = UrlPlatform(guard=bearer_guard("token-1", "token-2", "token-3"))
    platform.answers = [web.json_response({"outputs": []}) for _ in range(2)]
    async with serving(identities.handle) as url, running(platform):
        serverless = {
            "kind": "azure_function",
            "url": platform.url,
            "identity": {"resource": "api://models", "url": url},
        }
        async with Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway:
            first = await gateway.infer()
            access = gateway.runtime_function.caller._access
            await gateway.until(lambda: access.parts[0].secret.current() == "token-2")
            second = await gateway.infer()
    assert (first.status, second.status) == (200, 200)


async def test_a_workload_identitys_token_is_exchanged(tmp_path: Path) -> None:
    """As on AKS: the pod's own token is in a file that the cluster renews."""
    asked: list[dict[str, str]] = []

    async def entra(request: web.Request) -> web.Response:
        asked.append(
            {"path": request.path, **{k: str(v) for k, v in (await request.post()).items()}}
        )
        return web.json_response({"access_token": f"token-{len(asked)}", "expires_in": 1})

    platform = UrlPlatform(guard=bearer_guard("token-1", "token-2"))
    platform.answers = [web.json_response({"outputs": []}) for _ in range(2)]
    await asyncio.to_thread((tmp_path / "own").write_text, "own-1\n")
    async with serving(entra) as url, running(platform):
        identity = {
            "resource": "api://models", "client_id": "c-1", "tenant_id": "t-1",
            "authority": url, "token_file": "own",
        }  # fmt: skip
        serverless = {"kind": "azure_function", "url": platform.url, "identity": identity}
        async with Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway:
            await asyncio.to_thread((tmp_path / "own").write_text, "own-2\n")
            first = await gateway.infer()
            access = gateway.runtime_function.caller._access
            await gateway.until(lambda: access.parts[0].secret.current() == "token-2")
            second = await gateway.infer()
    assert (first.status, second.status) == (200, 200)
    assert asked[0] == {
        "path": "/t-1/oauth2/v2.0/token",
        "grant_type": "client_credentials",
        "client_id": "c-1",
        "scope": "api://models/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "own-1",
    }
    assert asked[1]["client_assertion"] == "own-2"


@pytest.mark.parametrize(
    ("status", "own", "told"),
    [(401, "own", "status 401"), (200, None, "cannot be read"), (200, "own", "no token")],
    ids=["refused", "no file", "no token"],
)
async def test_why_a_workload_gets_no_token(
    tmp_path: Path, status: int, own: str | None, told: str
) -> None:
    async def entra(_request: web.Request) -> web.Response:
        return web.json_response({"error_description": "tells of the identity"}, status=status)

    if own is not None:
        await asyncio.to_thread((tmp_path / "own").write_text, own)
    client = UpstreamClient(clock=time.monotonic)
    try:
        async with serving(entra) as url:
            workload = Workload(parse_address(url), "t", "c", tmp_path / "own")
            with pytest.raises(CredentialError, match=told) as caught:
                await WorkloadTokens(client, workload, "r", lambda: 1000.0).fetch()
    finally:
        await client.close()
    assert "tells of" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({}, "no token"),
        ({"access_token": "x"}, "no token"),
        ({"access_token": "", "expires_on": "1"}, "no token"),
        ({"access_token": "ä", "expires_on": 1}, "no token"),
        ([], "no token"),
    ],
    ids=["empty", "without an end", "an empty token", "not ASCII", "no object"],
)
async def test_answers_that_are_no_tokens(answer: Any, told: str) -> None:
    identities = Identities()
    identities.answer = answer
    with pytest.raises(CredentialError, match=told):
        await fetched(identities)


async def fetched(identities: Identities, secret: str = "") -> Fetched[str]:
    client = UpstreamClient(clock=time.monotonic)
    try:
        async with serving(identities.handle) as url:
            source = IdentitySource(parse_address(url), "/token", secret)
            return await IdentityTokens(client, source, "r", "", lambda: 1000.0).fetch()
    finally:
        await client.close()


async def test_a_lifetime_instead_of_an_end() -> None:
    identities = Identities()
    identities.answer = {"access_token": "x", "expires_in": "60"}
    assert await fetched(identities) == Fetched("x", expires_at=1060.0)


async def test_an_identity_service_that_refuses() -> None:
    with pytest.raises(CredentialError, match=r"status 400$"):
        await fetched(Identities("right"), "wrong")
