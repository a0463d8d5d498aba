"""A real receiver hears what is wanted."""

import asyncio
import hmac
import time
from hashlib import sha256
from typing import Any

import pytest
from aiohttp import web

from router.backends.pool import scale_hook
from router.backends.pool.scale_hook import HookTarget, ScaleHook
from router.backends.serverless.secret_files import SecretFile
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient

WALL = 1_700_000_000.0


class Receiver:
    """Keeps what was posted; answers `status`."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        self.url = ""

    async def serve(self, request) -> Any:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.posts.append((request.raw_path, headers, await request.read()))
        return web.Response(status=self.status)

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.posts]

    async def until(self, count) -> None:
        async with asyncio.timeout(5):
            while len(self.posts) < count:
                await asyncio.sleep(0.002)


@pytest.fixture
async def receiver():
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def run_hook(receiver):
    """Starts a hook; stops it at the end."""
    upstream = UpstreamClient(clock=time.monotonic)
    tasks = []

    def run(secret=None, is_signed=False, is_ours=lambda: True, url=None) -> Any:
        target = HookTarget(parse_address(url or receiver.url), "/replicas", secret, is_signed)
        hook = ScaleHook("m", target, upstream, lambda: WALL)
        tasks.append(asyncio.create_task(hook.run(is_ours)))
        return hook

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await upstream.close()


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    return SecretFile(file)


async def test_a_number_is_told_once_and_a_new_one_again(receiver, run_hook):
    hook = run_hook()
    for wanted in (2, 2, 3):
        hook.want(wanted)
        await receiver.until(wanted - 1)
    assert receiver.bodies == [
        b'{"model":"m","replicas":2}',
        b'{"model":"m","replicas":3}',
    ]
    path, headers, _ = receiver.posts[0]
    assert path == "/replicas"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers


async def test_the_secret_is_given(receiver, run_hook, secret):
    run_hook(secret).want(1)
    await receiver.until(1)
    assert receiver.posts[0][1]["authorization"] == "Bearer s3cret"


async def test_or_the_body_is_signed_with_it(receiver, run_hook, secret):
    run_hook(secret, is_signed=True).want(1)
    await receiver.until(1)
    _, headers, body = receiver.posts[0]
    signed = f"{headers['x-router-timestamp']}.".encode() + body
    expected = hmac.new(b"s3cret", signed, sha256).hexdigest()
    assert headers["x-router-signature"] == f"sha256={expected}"
    assert headers["x-router-timestamp"] == str(int(WALL))
    assert "authorization" not in headers


@pytest.fixture
def quickly(monkeypatch):
    """Pauses of milliseconds."""
    monkeypatch.setattr(scale_hook, "_PAUSES", lambda _state: 0.01)


@pytest.mark.usefixtures("quickly")
async def test_it_is_repeated_until_it_is_heard_and_then_no_more(receiver, run_hook):
    receiver.status = 503
    run_hook().want(4)
    await receiver.until(3)
    receiver.status = 200
    heard = len(receiver.posts)
    await receiver.until(heard + 1)
    await asyncio.sleep(0.05)  # five pauses: nothing more may come
    assert len(receiver.posts) <= heard + 2


async def test_a_newer_number_replaces_one_that_was_not_heard(receiver, run_hook):
    receiver.status = 500
    hook = run_hook()
    hook.want(4)
    await receiver.until(1)
    receiver.status = 200
    hook.want(5)  # before the pause of half a second is over
    await receiver.until(2)
    assert receiver.bodies[1] == b'{"model":"m","replicas":5}'


@pytest.mark.usefixtures("quickly")
async def test_a_secret_that_cannot_be_read_is_waited_for(receiver, run_hook, tmp_path):
    file = tmp_path / "late"
    run_hook(SecretFile(file)).want(1)
    await asyncio.sleep(0.02)
    assert not receiver.posts, "never without the proof"
    await asyncio.to_thread(file.write_text, "there")
    await receiver.until(1)
    assert receiver.posts[0][1]["authorization"] == "Bearer there"


async def test_it_is_said_again_from_time_to_time(receiver, run_hook, monkeypatch):
    monkeypatch.setattr(scale_hook, "_REPEAT_S", 0.02)
    run_hook().want(1)
    await receiver.until(3)


async def test_who_does_not_lead_any_more_says_nothing(receiver, run_hook, monkeypatch):
    monkeypatch.setattr(scale_hook, "_REPEAT_S", 0.02)
    leads = [True]
    hook = run_hook(is_ours=lambda: leads[0])
    hook.want(1)
    await receiver.until(2)
    leads[0] = False
    await asyncio.sleep(0.05)
    said = len(receiver.posts)
    await asyncio.sleep(0.1)
    assert len(receiver.posts) == said
    leads[0] = True
    hook.want(1)
    await receiver.until(said + 1)
