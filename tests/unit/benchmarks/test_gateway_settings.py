"""The gateway is measured with what the benchmark says it is measured with."""

from pathlib import Path

import pytest

from router.assembly.runtime import assemble, new_parts
from router.domain.request import InferenceRequest
from router.gateway.protocols.oip import OIP
from router.policy.rules import first_match
from router.runtime import Runtime
from router.settings.loader import load
from tests.benchmarks.probes.decision import decision
from tests.benchmarks.scenarios import MIB, MODEL
from tests.benchmarks.systems.gateway_settings import MODELS, RULES, settings_file
from tests.benchmarks.systems.system import Site


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    config = settings_file(Site(tmp_path, 8080, 9), "redis://127.0.0.1:1/0")
    return assemble(load(config, {}), new_parts())


def test_rules_models_and_both_backends_are_there(runtime: Runtime):
    assert len(runtime.settings.rules) == RULES == 50
    assert len(runtime.models) == MODELS == 100
    assert all(model.pool and model.serverless for model in runtime.models.values())
    assert runtime.settings.shared_state.redis_url


@pytest.mark.parametrize("payload_bytes", [300, 4 * MIB], ids=["small", "large"])
def test_requests_pass_all_rules_and_are_steered(runtime: Runtime, payload_bytes: int):
    model = runtime.models[MODEL]
    request = InferenceRequest("id", OIP, MODEL, "POST", "infer", "/", payload_bytes, 0.0)
    rule = first_match(model.policy.rules, request)
    assert rule.name == "default"
    assert rule.route.wish(0.5) is None
    assert len(model.policy.rules) > RULES / 3


def test_the_decision_probe_gives_both_figures(tmp_path: Path):
    names = {finding.name: finding.value for finding in decision(tmp_path)}
    assert 0 < names["decision"] < names["decision-whole"] < 10_000
