"""The systemd unit and the public CI fit what the gateway and the Makefile do."""

import configparser
import re

import yaml
from click.testing import CliRunner

from router.cli import main
from router.settings.server import ServerSettings
from tests.architecture.tables import ROOT


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "deploy" / "systemd" / "hybrid-router.service")
    return parser["Service"]


def test_the_unit_waits_for_what_the_gateway_tells():
    service = unit()
    assert service["Type"] == "notify"
    assert service["ExecReload"].endswith("-HUP $MAINPID")
    assert int(service["WatchdogSec"].removesuffix("s")) >= 10
    drain_s = ServerSettings().drain_timeout_s
    assert float(service["TimeoutStopSec"].removesuffix("s")) > 2 * drain_s + 10


def test_the_unit_runs_commands_that_there_are():
    commands = [unit()[key].split() for key in ("ExecStartPre", "ExecStart")]
    for _program, command, *_ in commands:
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


def test_public_ci_runs_what_the_repository_runs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    told = " ".join(step.get("run", "") for step in steps)
    assert ".ci/run" in told
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    (made,) = re.findall(r"make ([a-z ]+)", told)
    assert set(made.split()) <= set(targets)
