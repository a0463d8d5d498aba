"""The client of deliveries against real sockets: addresses, redirects, TLS, time-outs."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from router.jobs.deliveries.poster import Message, Poster
from router.settings.deliveries import DeliveriesSettings
from tests.fakes.certificates import make_certificate, server_context
from tests.fakes.upstreams import Answer, Gate, Received
from tests.integration.jobs.receiver import LOOPBACK, receiving

MESSAGE = Message([("content-type", "application/json"), ("webhook-id", "1")], b"{}")


def settings(**more: object) -> DeliveriesSettings:
    return DeliveriesSettings.model_validate({**LOOPBACK, "secret_file": "s", **more})


async def posted(url: str, given: DeliveriesSettings, tls: ssl.SSLContext | None = None):
    poster = Poster(given, tls)
    try:
        return await poster.post(url, MESSAGE)
    finally:
        await poster.close()


async def test_a_redirect_is_not_followed():
    async with receiving() as secret, receiving() as receiver:

        async def redirects(_: Received) -> Answer:
            return Answer(307, b"", (("location", secret.url),))

        receiver.behave = redirects
        reply = await posted(receiver.url, settings())
        assert reply.cause == "its receiver answered 307: redirects are not followed"
        assert not secret.received


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "127.1"])
async def test_addresses_that_are_not_allowed_are_not_connected_to(host: str):
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", host)
        reply = await posted(url, settings(private_networks=[]))
        assert reply.status == 0
        assert not receiver.received


async def test_a_name_that_resolves_otherwise_a_moment_later_gains_nothing(monkeypatch):
    """What was checked is what is connected to: the second answer of the resolver is not asked."""
    async with receiving() as receiver:
        port, answers = int(receiver.url.rsplit(":")[-1]), []
        loop = asyncio.get_running_loop()

        async def resolves(host, port_, **_):
            answers.append(host)
            address = "203.0.113.1" if len(answers) == 1 else "127.0.0.1"
            return [(2, 1, 6, "", (address, port_))]

        monkeypatch.setattr(
            type(loop), "getaddrinfo", lambda _, *given, **more: resolves(*given, **more)
        )
        given = settings(private_networks=["203.0.113.0/24"], timeout="1s")
        first = await posted(f"http://rebinds.test:{port}/", given)
        second = await posted(f"http://rebinds.test:{port}/", given)
        assert first.status == 0
        assert second.cause == "its address is not one that may be called"
        assert not receiver.received


async def test_a_receiver_that_does_not_answer_is_left():
    async with receiving() as receiver:
        receiver.behave = Gate()
        reply = await posted(receiver.url, settings(timeout="100ms"))
        assert reply.cause == "no answer within 0.1 s"


async def test_nobody_there_and_no_such_name():
    async with receiving() as receiver:
        gone = receiver.url
    assert "connection failed" in (await posted(gone, settings())).cause
    assert "127.0.0.1" not in (await posted(gone, settings())).cause
    unknown = await posted("http://no-such-name.invalid/", settings(timeout="5s"))
    assert unknown.status == 0


async def test_how_long_a_receiver_wants_to_rest_is_told():
    async with receiving() as receiver:
        for told, seconds in (("120", 120.0), ("soon", 0.0), ("-5", 0.0), ("9" * 30, 0.0)):

            async def rests(_: Received, told: str = told) -> Answer:
                return Answer(429, b"", (("retry-after", told),))

            receiver.behave = rests
            assert (await posted(receiver.url, settings())).retry_after_s == seconds


async def test_https_with_a_certificate_that_is_known_and_one_that_is_not(tmp_path: Path):
    cert, key = await asyncio.to_thread(make_certificate, tmp_path, "receiver")

    async def takes(_: web.BaseRequest) -> web.Response:
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(takes))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(cert, key))
    await site.start()
    try:
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
        knows = ssl.create_default_context(cafile=str(cert))
        assert (await posted(url, settings(allow_http=False), knows)).status == 204
        unknown = await posted(url, settings(allow_http=False))
        assert unknown.cause == "its certificate is not valid"
    finally:
        await runner.cleanup()
