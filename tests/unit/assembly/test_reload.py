"""A reload that keeps a pool gives it the new settings all the same."""

import pytest

from router.backends.pool.static import StaticDriver
from router.runtime import ModelRuntime
from tests.fakes.runtimes import make_runtime

TEXT = """
server: {{drain_timeout: {drain}}}
models:
  - name: m
    slo: {{latency_ms: 250}}
    serverless: {{kind: local, max_concurrency: {calls}}}
    pool:
      kind: static
      urls: ["http://127.0.0.1:1"]
      max_replicas: 1
      queue: {{max_requests: {queue}}}
      timeouts: {{connect: {connect}, response: {response}}}
      health: {{interval: {interval}, ejection: {{failures: {failures}}}}}
"""
BEFORE = {
    "drain": "30s",
    "calls": 8,
    "queue": 100,
    "connect": "1s",
    "response": "60s",
    "interval": "1s",
    "failures": 3,
}


def in_force(model: ModelRuntime) -> dict[str, object]:
    """What the objects of the model go by."""
    pool, prober, function, settings = model.pool, model.prober, model.serverless, model.settings
    assert isinstance(model.driver, StaticDriver)
    assert pool is not None
    assert prober is not None
    assert function is not None
    assert settings.pool is not None
    return {
        "drain": model.driver.params.drain_s,
        "calls": function.limit.current,
        "queue": pool.queue.max_requests,
        "connect": pool.caller.connect_timeout_s,
        "response": settings.pool.timeouts.response_s,
        "interval": prober.params.interval_s,
        "failures": pool.params.circuit.failures_to_open,
    }


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        ("drain", "5s", 5.0),
        ("calls", 4, 4),
        ("queue", 7, 7),
        ("connect", "200ms", 0.2),
        ("response", "2s", 2.0),
        ("interval", "3s", 3.0),
        ("failures", 5, 5),
    ],
)
async def test_a_kept_pool_goes_by_the_new_settings(setting, text, value):
    before = make_runtime(TEXT.format(**BEFORE))
    after = make_runtime(TEXT.format(**BEFORE | {setting: text}), previous=before)
    old, new = before.models["m"], after.models["m"]
    assert new.pool is old.pool
    assert in_force(new)[setting] == value
