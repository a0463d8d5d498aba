"""The command line as a user runs it: what is printed, and the exit codes 0, 1 and 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.end_to_end.conftest import StartGateway, repository, start_gateway
from tests.integration.end_to_end.models import model, settings

__all__ = ["repository", "start_gateway"]

DEMO = Path(__file__).parents[2] / "config" / "router.yaml"
ASK = ("explain", "--config", str(DEMO), "--model", "textdet")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(
        "models:\n"
        "  - name: m\n"
        "    slo: {latency_ms: -5}\n"
        "    pool: {kind: static, urls: [http://127.0.0.1:1], concurency: 3}\n"
    )
    return path


def test_a_valid_file_is_said_to_be_valid():
    done = run("check", str(DEMO))
    assert done.returncode == 0
    assert f"{DEMO}: valid, 3 models" in done.stdout


def test_all_mistakes_are_told_at_once_with_their_lines(broken: Path):
    done = run("check", str(DEMO), str(broken))
    assert done.returncode == 1
    assert f"{broken}:3: models[0].slo.latency_ms = -5, must be" in done.stderr
    assert f"{broken}:4: models[0].pool.concurency" in done.stderr
    assert "concurrency" in done.stderr.split("concurency", 1)[1]
    assert f"{DEMO}: valid" in done.stdout


def test_serve_refuses_a_broken_file(broken: Path):
    done = run("serve", "--config", str(broken))
    assert done.returncode == 1
    assert "models[0].slo.latency_ms = -5" in done.stderr


def test_a_request_is_explained_without_a_gateway():
    binary = ("--bytes", "4915200", "--header", "Inference-Header-Content-Length=200")
    done = run(*ASK, *binary)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith(
        "=> pool  reason limit_payload  rule default, held until there is capacity"
    )
    document = json.loads(run(*ASK, *binary, "--json").stdout)
    assert (document["backend"], document["reason"]) == ("pool", "limit_payload")
    assert [step["stage"] for step in document["trace"]][:2] == ["rule", "rule"]


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ("{kind: static, urls: ['http://10.0.0.1', 'http://10.0.0.2']}", "warm_capacity"),
        ("{kind: process, min_replicas: 1}", "warm_capacity"),
        ("{kind: process}", "below_break_even"),
    ],
    ids=["servers that run already", "a replica kept warm", "nothing kept warm"],
)
def test_without_a_gateway_the_least_replicas_are_there(tmp_path: Path, pool: str, reason: str):
    model = f"{{name: m, slo: {{latency_ms: 5000}}, serverless: {{kind: local}}, pool: {pool}}}"
    (tmp_path / "router.yaml").write_text(f"models: [{model}]\n")
    config = str(tmp_path / "router.yaml")
    done = run("explain", "--config", config, "--model", "m", "--bytes", "9", "--json")
    assert json.loads(done.stdout)["reason"] == reason


def test_a_request_nobody_can_take_is_a_no():
    done = run("explain", "--config", str(DEMO), "--model", "unknown", "--bytes", "1")
    assert done.returncode == 1
    assert "'unknown' is not configured" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "--model", "m", "--bytes", "1"),
        (*ASK, "--bytes", "-1"),
        (*ASK, "--bytes", "1", "--header", "no-equals-sign"),
        ("serve",),
        ("status", "--interval", "0"),
        ("unknown-command",),
    ],
)
def test_wrong_usage_is_told_and_ends_with_two(arguments: tuple[str, ...]):
    done = run(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_status_without_a_gateway_is_a_no():
    done = run("status", "--once", "--admin", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "no gateway answers" in done.stderr


def test_status_and_explain_of_a_running_gateway(start_gateway: StartGateway, repository: Path):
    gateway = start_gateway(settings(repository, model("mlp")))
    shown = run("status", "--admin", gateway.admin)  # no terminal: once
    assert shown.returncode == 0
    assert "mlp" in shown.stdout
    assert "idle" in shown.stdout
    document = json.loads(run("status", "--json", "--admin", gateway.admin).stdout)
    assert document["models"][0]["cost_usd"] == {
        "serverless": 0.0, "warm_busy": 0.0, "warm_idle": 0.0, "kept_warm": 0.0,
    }  # fmt: skip
    asked = run("explain", "--admin", gateway.admin, "--model", "mlp", "--bytes", "100")
    assert asked.returncode == 0
    assert "=> serverless  reason below_break_even  rule implicit-default" in asked.stdout


def test_status_of_one_model_and_of_the_wrong_port(start_gateway: StartGateway, repository: Path):
    gateway = start_gateway(settings(repository, model("mlp"), model("echo")))
    ask = ("status", "--admin", gateway.admin.removeprefix("http://"))
    one = run(*ask, "--model", "mlp")
    assert one.returncode == 0
    assert "mlp" in one.stdout
    assert "echo" not in one.stdout
    assert "reasons: no request yet" in one.stdout
    document = json.loads(run(*ask, "--json", "--model", "echo").stdout)
    assert [found["name"] for found in document["models"]] == ["echo"]
    unknown = run(*ask, "--model", "no")
    assert unknown.returncode == 1
    assert "no model 'no' is configured; there are mlp, echo" in unknown.stderr
    data = run("status", "--admin", gateway.url)
    assert data.returncode == 1
    assert "is the data port of a gateway: give its admin port" in data.stderr


def test_events_of_a_running_gateway(start_gateway: StartGateway, repository: Path):
    gateway = start_gateway(settings(repository, model("mlp", pool={"min_replicas": 1})))
    ask = ("events", "--admin", gateway.admin)
    done = run(*ask, "--kind", "sizing")
    assert done.returncode == 0
    assert "Z sizing       model mlp: 0 -> 1 replicas (min_replicas" in done.stdout
    events = [
        json.loads(line) for line in run(*ask, "--json", "--model", "mlp").stdout.splitlines()
    ]
    assert {event["model"] for event in events} == {"mlp"}
    sizing = next(event for event in events if event["kind"] == "sizing")
    assert {"before", "after", "load", "counter_usd", "beta_usd"} <= sizing["facts"].keys()
    nowhere = run("events", "--admin", "http://127.0.0.1:1")
    assert nowhere.returncode == 1
    assert "no gateway answers" in nowhere.stderr


def test_ports_in_use_are_told(start_gateway: StartGateway, repository: Path, tmp_path: Path):
    gateway = start_gateway(settings(repository, model("mlp")))
    config = tmp_path / "same.yaml"
    taken = gateway.url.removeprefix("http://")
    config.write_text(
        gateway.config_file.read_text().replace("listen: 127.0.0.1:0", f"listen: {taken}", 1)
    )
    done = run("serve", "--config", str(config))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert f"change server.listen ({config}:2), which is {taken}" in done.stderr


def test_a_shell_can_complete_commands():
    script = run("completion", "bash").stdout
    command = "_hybrid_router_completion_setup"
    assert command in script
    asked = {"_HYBRID_ROUTER_COMPLETE": "bash_complete", "COMP_WORDS": "x comp", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("hybrid-router")
    done = subprocess.run(
        [program], env=os.environ | asked, capture_output=True, text=True, check=False, timeout=30
    )
    assert "plain,completion" in done.stdout
