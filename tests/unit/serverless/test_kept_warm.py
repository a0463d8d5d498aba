"""What AWS keeps warm, from settings to what a call and an hour cost."""

import pytest

from router.assembly.runtime import assemble, new_parts
from router.backends.serverless.function import KeptWarm
from tests.unit.settings.loading import load_config

TEXT = """
models:
  - name: m
    slo: {latency_ms: 100}
    serverless:
      kind: aws_lambda
      function: f
      region: us-east-1
      auth: none
      memory_mb: 2048
      max_concurrency: 7
      qualifier: live
      %s
"""

CASES = {
    "on demand": ("", (0, 0.0)),
    "provisioned: 2 GB each, all the time": (
        "provisioned_concurrency: 3", (3, 3 * 2 * 0.0000041667)),
    "two instances and the fee": (
        "managed_instances: {count: 2, price_per_instance_hour: 0.1}",
        (7, 2 * 0.1 * 1.15 / 3600)),
    "a price of its own": (
        "provisioned_concurrency: 1\n      price: {provisioned_usd_per_gb_s: 0.5}", (1, 1.0)),
}  # fmt: skip


def kept(line: str) -> KeptWarm:
    function = assemble(load_config(TEXT % line), new_parts()).models["m"].serverless
    assert function is not None
    return function.params.kept_warm


@pytest.mark.parametrize(("line", "expected"), CASES.values(), ids=CASES)
def test_how_many_and_what_they_cost(line: str, expected: tuple[int, float]) -> None:
    found = kept(line)
    assert found.environments == expected[0]
    assert found.usd_per_s == pytest.approx(expected[1])


@pytest.mark.parametrize(
    ("line", "usd_per_s"),
    [
        ("provisioned_concurrency: 3", 2 * 0.0000097222),
        ("managed_instances: {count: 1, price_per_instance_hour: 0.1}", 0.0),
    ],
    ids=["provisioned", "managed"],
)
def test_what_a_call_on_them_costs_by_its_time(line: str, usd_per_s: float) -> None:
    assert kept(line).usd_per_billed_s == pytest.approx(usd_per_s)
