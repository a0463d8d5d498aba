"""The examples: `check` takes each of them, and those that need no cloud are served."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from router.cli import main
from tests.architecture.tables import ROOT
from tests.fakes.certificates import make_certificate
from tests.fakes.models import write_mlp
from tests.fakes.upstreams import Answer, Received, Upstream, running
from tests.integration.end_to_end.client import MLP, infer
from tests.integration.end_to_end.conftest import StartGateway, start_gateway

__all__ = ["start_gateway"]

EXAMPLES = ROOT / "examples"
FILES = sorted([*EXAMPLES.glob("*.yaml"), *ROOT.glob("deploy/serverless/*/router.yaml")])
# Of a machine that is not this one.
TOLD_ELSEWHERE = ("cannot be read here", "open functions answer")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The files and variables that examples expect on their machine."""
    write_mlp(tmp_path / "models", "classifier")
    certificate, key = make_certificate(tmp_path, "tls", days=60)
    certificate.rename(tmp_path / "tls.crt")
    key.rename(tmp_path / "tls.key")
    keys = [{"name": "a", "sha256": hashlib.sha256(b"secret").hexdigest(), "tenant": "t"}]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("0123456789abcdef" * 4)
    return {
        "MODELS": str(tmp_path / "models"),
        "TLS_DIR": str(tmp_path),
        "LOG_DIR": str(tmp_path),
        "KEYS": str(tmp_path / "keys.yaml"),
        "ADMIN_TOKEN_FILE": str(token),
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_check_takes(file: Path, environment: dict[str, str]):
    done = CliRunner().invoke(main, ["check", str(file)], env=environment)
    assert done.exit_code == 0, done.stderr
    doubts = done.stderr.splitlines()
    assert [line for line in doubts if not any(told in line for told in TOLD_ELSEWHERE)] == []


def test_the_triggers_that_are_explained_are_those_of_the_example():
    told = (ROOT / "docs" / "events-in.md").read_text()
    excerpt = told.partition("```yaml\n")[2].partition("```")[0]
    assert excerpt.startswith("triggers:")
    assert excerpt in (EXAMPLES / "events.yaml").read_text()


def test_each_example_is_in_the_manual():
    listed = (ROOT / "docs" / "platforms.md").read_text()
    assert [file.name for file in EXAMPLES.glob("*") if f"[{file.name}]" not in listed] == []


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    found["server"] = {}  # on free ports
    return found


async def test_one_machine_serves(start_gateway: StartGateway, environment: dict[str, str]):
    gateway = start_gateway(example("one-machine.yaml"), **environment)
    async with aiohttp.ClientSession() as session:
        answer = await infer(session, gateway.url, "classifier", MLP)
    assert (answer.status, answer.backend) == (200, "serverless")


async def test_a_language_model_answers_and_another_one_stands_in(start_gateway: StartGateway):
    async def behave(received: Received) -> Answer:
        if received.method == "GET":
            return Answer(200, b"{}")
        return Answer(200, b'{"object": "chat.completion"}')

    asked = {"model": "llama", "messages": [{"role": "user", "content": "hi"}]}
    async with running(Upstream(behave)) as first, running(Upstream(behave)) as small:
        urls = {"VLLM_A": first.url, "VLLM_B": first.url, "VLLM_SMALL": small.url}
        gateway = start_gateway(example("language-model.yaml"), **urls)
        async with asyncio.timeout(60):  # until its servers have been probed
            while not (await gateway.status("llama"))["replicas_ready"]:
                await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as session:
            url = f"{gateway.url}/v1/chat/completions"
            async with session.post(url, json=asked) as answer:
                assert answer.status == 200
                assert "x-router-model" not in answer.headers  # the one asked for
            assert first.crash is not None
            await first.crash()
            async with session.post(url, json=asked) as answer:
                assert answer.status == 200
                assert answer.headers["x-router-model"] == "small-llama"
        assert b"small-llama" in small.received[-1].body
