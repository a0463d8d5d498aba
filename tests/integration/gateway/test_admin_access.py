"""The admin port against other people's pages, other people's names, and people without its token.

Against the port of one process and the parent's port of several alike.
"""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner, Result

from router.cli import main
from tests.fakes.upstreams import ok
from tests.integration.end_to_end.conftest import StartGateway, repository, start_gateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, settings
from tests.integration.harness import Harness

__all__ = ["repository", "start_gateway"]

TOKEN, OTHER = "5f" * 16, "a1" * 16
DRAIN = ("POST", "/v1/drain")
FOREIGN: dict[str, dict[str, str]] = {
    "a name that was pointed here": {"Host": "evil.example:9090"},
    "a page elsewhere": {"Origin": "https://evil.example"},
    "a page without an origin": {"Origin": "null"},
    "a page on another port here": {"Origin": "http://127.0.0.1:3000"},
    "a site elsewhere": {"Sec-Fetch-Site": "cross-site"},
}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def with_token(folder: Path) -> Path:
    file = folder / "admin.token"
    await asyncio.to_thread(file.write_text, TOKEN + "\n")
    await asyncio.to_thread(file.chmod, 0o600)
    return file


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_what_is_foreign_is_refused_and_does_nothing(tmp_path, headers):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        for method, path in (
            DRAIN, ("POST", "/v1/reload"), ("POST", "/v1/canary"), ("GET", "/v1/config"),
            ("GET", "/metrics"), ("GET", "/nowhere"),
        ):  # fmt: skip
            reply = await gateway.ask(method, path, headers=headers)
            assert (reply.status, "admin port" in reply.json()["error"]) == (403, True)
        ready = await gateway.ask("GET", "/readyz")
        assert (ready.status, ready.json()) == (200, {"ready": True})


async def test_configured_names_and_own_pages_are_taken(tmp_path):
    async with Harness(tmp_path, warm=[ok()], server={"admin_hosts": ["gateway"]}) as gateway:
        own = gateway.admin.removeprefix("http://")
        for headers in (
            {"Host": "gateway:9090"},
            {"Host": "localhost"},
            {"Origin": gateway.admin, "Sec-Fetch-Site": "same-origin"},
            {"Host": "gateway", "Origin": "https://gateway"},
            {"Host": own, "Sec-Fetch-Site": "none"},
        ):
            assert (await gateway.ask("GET", "/v1/status", headers=headers)).status == 200


async def test_the_token_is_asked_for_and_a_new_one_is_taken_up(tmp_path):
    file = await with_token(tmp_path)
    async with Harness(tmp_path, warm=[ok()], server={"admin_token_file": file.name}) as gateway:
        refused = await gateway.ask(*DRAIN)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "server.admin_token_file" in refused.json()["error"]
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await gateway.ask("GET", path)).status == 200
        shown = await gateway.ask("GET", "/v1/config", headers=bearer(TOKEN))
        assert (shown.status, TOKEN in shown.body.decode()) == (200, False)
        await asyncio.to_thread(file.write_text, OTHER)
        async with asyncio.timeout(10):  # nobody asks for a reload
            while (await gateway.ask("GET", "/v1/status", headers=bearer(OTHER))).status != 200:
                await asyncio.sleep(0.05)
        assert (await gateway.ask("GET", "/v1/status", headers=bearer(TOKEN))).status == 401


async def test_a_broken_token_file_leaves_the_old_token_in_force(tmp_path):
    file = await with_token(tmp_path)
    async with Harness(tmp_path, warm=[ok()], server={"admin_token_file": file.name}) as gateway:
        await asyncio.to_thread(file.write_text, "")
        told = await gateway.ask("POST", "/v1/reload", headers=bearer(TOKEN))
        assert (told.status, "must hold one token" in told.json()["errors"][0]) == (422, True)
        assert (await gateway.ask("GET", "/v1/status")).status == 401
        assert (await gateway.ask("GET", "/v1/status", headers=bearer(TOKEN))).status == 200


async def test_metrics_ask_for_the_token_where_that_is_switched_on(tmp_path):
    file = await with_token(tmp_path)
    server = {"admin_token_file": file.name, "admin_metrics_token": True}
    async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
        assert (await gateway.ask("GET", "/metrics")).status == 401
        assert (await gateway.ask("GET", "/metrics", headers=bearer(TOKEN))).status == 200
        assert (await gateway.ask("GET", "/readyz")).status == 200


@pytest.fixture
def guarded(start_gateway: StartGateway, repository: Path, tmp_path: Path) -> GatewayProcess:
    (tmp_path / "admin.token").write_text(TOKEN)
    config = settings(repository, model("mlp"))
    token = {"processes": 2, "admin_token_file": str(tmp_path / "admin.token")}
    config["server"] = {**config["server"], **token}
    return start_gateway(config)


async def test_several_processes_have_the_same_door(guarded: GatewayProcess, tmp_path: Path):
    async with aiohttp.ClientSession(guarded.admin) as session:

        async def status_of(method: str, path: str, **headers: str) -> int:
            async with session.request(method, path, headers=headers) as response:
                return response.status

        for headers in FOREIGN.values():
            assert await status_of(*DRAIN, **{**headers, **bearer(TOKEN)}) == 403
        assert await status_of(*DRAIN) == 401
        assert await status_of("GET", "/metrics") == 200
        assert await status_of("GET", "/readyz") == 200
        assert await status_of("POST", "/v1/reload", **bearer(TOKEN)) == 200
        await asyncio.to_thread((tmp_path / "admin.token").write_text, OTHER)
        assert await status_of("POST", "/v1/reload", **bearer(TOKEN)) == 200
        assert await status_of("GET", "/v1/status", **bearer(TOKEN)) == 401
        assert await status_of("GET", "/v1/status", **bearer(OTHER)) == 200


async def test_the_commands_present_it(tmp_path: Path):
    file = await with_token(tmp_path)
    async with Harness(tmp_path, warm=[ok()], server={"admin_token_file": file.name}) as gateway:

        async def run(*arguments: str, **environment: str) -> Result:
            command = [*arguments, "--admin", gateway.admin]
            return await asyncio.to_thread(CliRunner(env=environment).invoke, main, command)

        refused = await run("status", "--once")
        told = refused.stderr
        assert (refused.exit_code, "server.admin_token_file is needed" in told) == (1, True)
        assert (await run("status", "--once", "--token-file", str(file))).exit_code == 0
        question = ("explain", "--model", "m", "--bytes", "9")
        assert (await run(*question)).exit_code == 1
        assert "=> pool" in (await run(*question, ROUTER_ADMIN_TOKEN_FILE=str(file))).stdout
        missing = await run("status", "--token-file", str(tmp_path / "none"))
        assert (missing.exit_code, "cannot be read" in missing.stderr) == (2, True)
