"""Credentials come, are renewed and replaced while requests go on, and none of them fails."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.auth import jwt

from router.backends.serverless.aws_credentials import AwsChain
from router.backends.serverless.refresher import CredentialError
from router.backends.serverless.secret_files import SecretFile, TlsFiles, TlsPaths
from router.backends.serverless.sigv4 import AwsCredentials
from tests.fakes.certificates import make_certificate, server_context
from tests.fakes.upstreams import ok
from tests.fakes.url_platform import (
    MetadataServer,
    UrlPlatform,
    key_guard,
    running,
    serving,
    signature_guard,
    token_guard,
)
from tests.integration.harness import Harness

FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}
AWS = {"kind": "aws_lambda", "function": "f", "region": "eu-central-1"}
_CHAIN_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)  # fmt: skip


@pytest.fixture(autouse=True)
def only_the_tests_own_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _CHAIN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))


def answers(document: Any) -> Any:
    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(document)

    return handle


# -- AWS's chain -----------------------------------------------------------------------------------


def expiry(seconds: float) -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    fetched = await AwsChain("").fetch()
    assert fetched.value == AwsCredentials("AKID", "secret", "token")


async def test_a_profile_and_its_rotation(tmp_path: Path) -> None:
    def write(key: str) -> None:
        text = f"[ml]\naws_access_key_id = {key}\naws_secret_access_key = s\n"
        (tmp_path / "aws-credentials").write_text(text)

    await asyncio.to_thread(write, "AKID1")
    chain = AwsChain("ml")
    assert (await chain.fetch()).value.access_key == "AKID1"
    await asyncio.to_thread(write, "AKID2")
    assert (await chain.fetch()).value.access_key == "AKID2"


async def test_an_assumed_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile names a role; its credentials come from STS."""
    asked: list[str] = []

    async def sts(request: web.Request) -> web.Response:
        asked.append((await request.post())["RoleArn"])  # type: ignore[arg-type]
        body = (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            "<AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>"
            "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
            f"<Expiration>{expiry(3600)}</Expiration></Credentials></AssumeRoleResult>"
            "</AssumeRoleResponse>"
        )
        return web.Response(text=body, content_type="text/xml")

    def write() -> None:
        (tmp_path / "aws-config").write_text(
            "[profile ml]\nrole_arn = arn:aws:iam::111111111111:role/infer\n"
            "source_profile = base\nregion = eu-central-1\n"
            "[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = s\n"
        )

    await asyncio.to_thread(write)
    async with serving(sts) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        chain = AwsChain("ml")
        found = [(await chain.fetch()).value for _ in range(3)]
    assert found == [AwsCredentials("ASIAROLE", "s", "t")] * 3
    assert asked == ["arn:aws:iam::111111111111:role/infer"], "asked once, not at every look"


@pytest.mark.parametrize(
    ("config", "told"),
    [("", "none found"), ("[profile other]\nregion = eu-central-1\n", "ProfileNotFound")],
    ids=["nothing at all", "no such profile"],
)
async def test_no_credentials_are_a_clear_failure(tmp_path: Path, config: str, told: str) -> None:
    await asyncio.to_thread((tmp_path / "aws-config").write_text, config)
    with pytest.raises(CredentialError, match=told):
        await AwsChain("ml" if config else "").fetch()


@asynccontextmanager
async def rotating_container(
    platform: UrlPlatform, keys: dict[str, Credentials]
) -> AsyncIterator[str]:
    """A container credentials endpoint: each answer is a new key, and the one before last dies."""
    issued: list[str] = []

    async def handle(_request: web.Request) -> web.Response:
        name = f"ASIA{len(issued)}"
        issued.append(name)
        keys[name] = Credentials(name, "s", f"token-{name}")
        for old in issued[:-2]:
            keys.pop(old, None)
        return web.json_response(
            {
                "AccessKeyId": name,
                "SecretAccessKey": "s",
                "Token": f"token-{name}",
                "Expiration": expiry(2),
            }
        )

    platform.guard = signature_guard(keys)
    async with serving(handle) as url:
        yield url


async def test_expiring_credentials_are_renewed_without_a_failed_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwsChain.__init__, "__defaults__", (0.05,))
    keys: dict[str, Credentials] = {}
    platform = UrlPlatform()
    async with rotating_container(platform, keys) as url, running(platform):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        serverless = {**AWS, "endpoint_url": platform.url}
        model = {"serverless": serverless, "attempts": 1}
        document = {"statusCode": 200, "headers": {}, "body": "{}"}
        async with Harness(tmp_path, model=model) as gateway:
            async with asyncio.timeout(15):
                while "ASIA5" not in keys:
                    platform.answers.append(web.json_response(document))
                    assert (await gateway.infer()).status == 200
    used = {call.headers["authorization"].split("/")[0][-5:] for call in platform.calls}
    assert len(used) >= 3


async def test_replaced_aws_keys_are_taken_up_after_a_refusal(tmp_path: Path) -> None:
    """One request finds the old keys refused; the file is read again at once, not in its turn."""
    file = tmp_path / "aws-credentials"

    def write(key: str) -> None:
        file.write_text(f"[ml]\naws_access_key_id = {key}\naws_secret_access_key = s\n")

    def only(key: str) -> Any:
        return signature_guard({key: Credentials(key, "s")})

    await asyncio.to_thread(write, "AKIDOLD")
    document = {"statusCode": 200, "headers": {}, "body": "{}"}
    platform = UrlPlatform(guard=only("AKIDOLD"))
    platform.answers = [web.json_response(document) for _ in range(2)]
    async with running(platform):
        serverless = {**AWS, "endpoint_url": platform.url, "profile": "ml"}
        async with Harness(tmp_path, warm=[ok()], model={"serverless": serverless}) as gateway:
            first = await gateway.infer(x_router_backend="serverless")
            platform.guard = only("AKIDNEW")
            await asyncio.to_thread(write, "AKIDNEW")
            second = await gateway.infer(x_router_backend="serverless")
            credentials = gateway.runtime_function.caller._access.credentials
            await gateway.until(lambda: credentials.current().access_key == "AKIDNEW")
            third = await gateway.infer(x_router_backend="serverless")
    decisions = [reply.decision for reply in (first, second, third)]
    assert decisions == [("serverless", "hint"), ("pool", "fallback"), ("serverless", "hint")]


# -- Google ----------------------------------------------------------------------------------------


async def test_tokens_are_cached_and_renewed_ahead(tmp_path: Path) -> None:
    """Many requests, few tokens; and none of the tokens has expired when it is used."""
    issuer = MetadataServer(lifetime_s=2.0)
    platform = UrlPlatform(guard=token_guard(issuer))
    async with serving(issuer.handle) as metadata, running(platform):
        serverless = {
            "kind": "google_function",
            "url": platform.url,
            "metadata_url": metadata,
        }
        model = {"serverless": serverless, "attempts": 1}
        async with Harness(tmp_path, model=model) as gateway:
            async with asyncio.timeout(15):
                while len(issuer.audiences) < 3:
                    platform.answers.append(web.json_response({"outputs": []}))
                    assert (await gateway.infer()).status == 200
    assert set(issuer.audiences) == {platform.url}
    assert len(platform.calls) > 3 * len(issuer.audiences)


async def test_the_clients_own_authorization_survives(tmp_path: Path) -> None:
    issuer = MetadataServer()
    platform = UrlPlatform(guard=token_guard(issuer))
    platform.answers.append(web.json_response({"outputs": []}))
    async with serving(issuer.handle) as metadata, running(platform):
        serverless = {"kind": "google_function", "url": platform.url, "metadata_url": metadata}
        async with Harness(tmp_path, model={"serverless": serverless}) as gateway:
            reply = await gateway.infer(
                authorization="Bearer the-clients", x_serverless_authorization="Bearer forged"
            )
    assert reply.status == 200
    assert platform.calls[0].headers.getall("authorization") == ["Bearer the-clients"]
    assert len(platform.calls[0].headers.getall("x-serverless-authorization")) == 1


async def test_a_service_accounts_key_gives_tokens(tmp_path: Path) -> None:
    """The key signs a request for a token; the token server checks that signature."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    issuer = MetadataServer()
    platform = UrlPlatform(guard=token_guard(issuer))
    platform.answers.append(web.json_response({"outputs": []}))

    async def token_server(request: web.Request) -> web.Response:
        assertion = str((await request.post())["assertion"])
        claims = jwt.decode(assertion, certs={"k1": public}, verify=True, audience=TOKEN_AUDIENCE)
        return web.json_response({"id_token": issuer.token(claims["target_audience"])})

    async with serving(token_server) as tokens, running(platform):
        document = {
            "type": "service_account",
            "client_email": "router@project.iam.gserviceaccount.com",
            "private_key_id": "k1",
            "private_key": key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ).decode(),
            "token_uri": tokens,
        }
        await asyncio.to_thread((tmp_path / "sa.json").write_text, json.dumps(document))
        serverless = {
            "kind": "google_function",
            "url": platform.url,
            "credentials_file": "sa.json",
        }
        async with Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway:
            reply = await gateway.infer()
    assert reply.status == 200, reply.body


TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"


# -- files -----------------------------------------------------------------------------------------


async def test_a_replaced_function_key_is_taken_up_after_a_refusal(tmp_path: Path) -> None:
    """The first request after the rotation goes to the pool, later ones to the function again."""
    await asyncio.to_thread((tmp_path / "key").write_text, "old")
    platform = UrlPlatform(guard=key_guard("old"))
    platform.answers = [web.json_response({"outputs": []}) for _ in range(9)]
    async with running(platform):
        serverless = {"kind": "azure_function", "url": platform.url, "key_file": "key"}
        async with Harness(tmp_path, warm=[ok()], model={"serverless": serverless}) as gateway:
            first = await gateway.infer(x_router_backend="serverless")
            platform.guard = key_guard("new")
            await asyncio.to_thread((tmp_path / "key").write_text, "new")
            second = await gateway.infer(x_router_backend="serverless")
            access = gateway.runtime_function.caller._access
            await gateway.until(lambda: access.parts[0].secret.current() == "new")
            third = await gateway.infer(x_router_backend="serverless")
    decisions = [reply.decision for reply in (first, second, third)]
    assert decisions == [("serverless", "hint"), ("pool", "fallback"), ("serverless", "hint")]


async def test_a_secret_is_read_again_even_if_nobody_refuses_it(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "key").write_text, "one\n")
    file = SecretFile(tmp_path / "key")
    first = await file.fetch()
    await asyncio.to_thread((tmp_path / "key").write_text, "two\n")
    assert (first.value, (await file.fetch()).value) == ("one", "two")
    assert first.expires_at is None
    assert first.look_again_s <= 60.0


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "one line"), (b"a\nb", "one line"), ("ä".encode(), "one line"),
     (b"x" * 9000, "one line"), (None, "cannot be read")],
    ids=["empty", "two lines", "not ASCII", "too long", "missing"],
)  # fmt: skip
async def test_a_secret_that_no_header_can_carry(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    if content is not None:
        await asyncio.to_thread((tmp_path / "key").write_bytes, content)
    with pytest.raises(CredentialError, match=told):
        await SecretFile(tmp_path / "key").fetch()


async def test_mutual_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    server = await asyncio.to_thread(make_certificate, tmp_path, "server")
    client = await asyncio.to_thread(make_certificate, tmp_path, "client")
    platform = UrlPlatform()
    platform.answers.append(web.json_response({"outputs": []}))
    async with running(platform, server_context(*server, client_ca=client[0])):
        tls = {"ca_file": "server.pem", "cert_file": "client.pem", "key_file": "client.key"}
        serverless = {"kind": "http_function", "url": platform.url, "price": FREE, "tls": tls}
        async with Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway:
            reply = await gateway.infer()
            del tls["cert_file"], tls["key_file"]
            await gateway.write(gateway.changed(serverless={"tls": tls}))
            await gateway.ask("POST", "/v1/reload")
            without = await gateway.infer()
    assert (reply.status, without.status) == (200, 502)


async def test_unchanged_tls_files_keep_their_connections(tmp_path: Path) -> None:
    cert, _ = await asyncio.to_thread(make_certificate, tmp_path, "one")
    files = TlsFiles(TlsPaths(cert, None, None))
    first, second = (await files.fetch()).value, (await files.fetch()).value
    await asyncio.to_thread(make_certificate, tmp_path, "one")
    third = (await files.fetch()).value
    assert first is second
    assert third is not first


async def test_a_key_that_does_not_fit_its_certificate(tmp_path: Path) -> None:
    cert, _ = await asyncio.to_thread(make_certificate, tmp_path, "one")
    _, key = await asyncio.to_thread(make_certificate, tmp_path, "two")
    with pytest.raises(CredentialError, match="TLS files are not usable"):
        await TlsFiles(TlsPaths(None, cert, key)).fetch()


# -- reload ----------------------------------------------------------------------------------------


async def test_a_reload_has_new_credentials_before_requests_need_them(tmp_path: Path) -> None:
    """And the loops of those that nobody needs any more are gone."""
    for name in ("one", "two"):
        await asyncio.to_thread((tmp_path / name).write_text, f"key-{name}")
    platform = UrlPlatform(guard=key_guard("key-one", "key-two"))
    platform.answers = [web.json_response({"outputs": []}) for _ in range(9)]
    async with running(platform):
        serverless = {"kind": "azure_function", "url": platform.url, "key_file": "one"}
        async with Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway:
            await gateway.infer()
            await gateway.write(gateway.changed(serverless={"key_file": "two"}))
            await gateway.ask("POST", "/v1/reload")
            assert (await gateway.infer()).status == 200
            loops = [task.get_name() for task in asyncio.all_tasks()]
    used = [call.headers["x-functions-key"] for call in platform.calls]
    assert used == ["key-one", "key-two"]
    assert len([name for name in loops if name.startswith("credential ")]) == 1
