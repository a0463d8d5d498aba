"""Pub/Sub push with OIDC tokens, signed as Google signs them, verified against its certificates."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.auth import crypt, jwt

from router.settings.keys import hash_key
from tests.fakes.certificates import make_certificate
from tests.fakes.upstreams import ok
from tests.integration.harness import Harness
from tests.integration.jobs.event_senders import encoded, pub_sub
from tests.integration.jobs.receiver import Receiver, receiving

AUDIENCE = "https://router.example/v1/events"
PUSHER = "push@project.iam.gserviceaccount.com"
EVENTS = "/v1/events"


class Signer:
    """Signs tokens with a key whose certificate `receiver` serves."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate.read_text()
        self._signer = crypt.EsSigner.from_string(key.read_text(), key_id="k1")

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        payload = {
            "iss": "https://accounts.google.com", "aud": AUDIENCE, "email": PUSHER, "sub": "1",
            "email_verified": True, "iat": now - 10, "exp": now + 3600, **claims,
        }  # fmt: skip
        return str(jwt.encode(self._signer, payload), "ascii")


@pytest.fixture
async def signer(tmp_path: Path) -> Signer:
    return Signer(*await asyncio.to_thread(make_certificate, tmp_path, "google"))


@pytest.fixture
async def google(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.behave = ok(encoded({"k1": signer.certificate}))
        monkeypatch.setattr("router.jobs.events.google.CERTIFICATES_URL", receiver.url)
        yield receiver


def config(folder: Path) -> dict[str, Any]:
    keys = [{"name": "pusher", "sha256": hash_key("secret"), "tenant": "google"}]
    (folder / "keys.yaml").write_text(yaml.safe_dump(keys))
    return {
        "auth": {"api_keys_file": "keys.yaml"},
        "jobs": {"directory": "jobs"},
        "events": {"google_audience": AUDIENCE, "google_accounts": {PUSHER: "pusher"}},
        "triggers": [{"name": "any", "model": "m", "input": {"told": "{{ data }}"}}],
    }


async def pushed(gateway: Harness, token: str) -> int:
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    return (await gateway.request("POST", EVENTS, encoded(pub_sub(b"x")), headers)).status


async def test_a_token_has_the_rights_of_its_accounts_key(tmp_path, signer, google):
    async with Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway:
        assert await pushed(gateway, signer.token()) == 202
        assert await pushed(gateway, signer.token(email="else@gserviceaccount.com")) == 403
        jobs = await gateway.request("GET", "/v1/jobs", None, {"x-api-key": "secret"})
        assert len(jobs.json()["data"]) == 1
        assert await pushed(gateway, "secret") == 202  # a key is still one
        assert len(google.received) == 1


async def test_tokens_that_are_not_googles_for_us_are_refused(tmp_path, signer, google):
    (tmp_path / "other").mkdir()
    other = Signer(*await asyncio.to_thread(make_certificate, tmp_path / "other", "other"))
    good = signer.token()
    tokens = [
        other.token(),
        signer.token(aud="https://elsewhere.example"),
        signer.token(exp=int(time.time()) - 600, iat=int(time.time()) - 900),
        signer.token(iss="https://evil.example"),
        signer.token(email_verified=False),
        good[:-8] + "AAAAAAAA",
        ".".join(["eyJhbGciOiJub25lIn0", good.split(".")[1], "AA"]),
        "a.b.c",
    ]
    async with Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway:
        assert [await pushed(gateway, token) for token in tokens] == [401] * len(tokens)
        assert not gateway.warm[0].received


async def test_without_googles_certificates_nobody_gets_in(tmp_path, signer, google):
    google.behave = ok(b"no JSON", 500)
    async with Harness(tmp_path, warm=[ok()], config=config(tmp_path)) as gateway:
        assert [await pushed(gateway, signer.token()) for _ in range(3)] == [503] * 3
        assert len(google.received) == 1  # not again for each of them
