import pytest

from router.settings.schema import Settings
from router.settings.shares import shared
from router.settings.sharing import groups_of
from tests.unit.settings.loading import load_config, problems_of

TEXT = """
pools:
  cpu: {kind: process, max_replicas: 3, model_memory: 1GiB}
models:
  - name: a
    slo: {latency_ms: 100}
    pool: cpu
    sharing: {memory: 300MiB, max_concurrency: 2}
  - {name: b, slo: {latency_ms: 200}, pool: cpu}
  - {name: c, slo: {latency_ms: 200}, pool: {kind: process}}
"""


def names(settings: Settings) -> dict[str, list[str]]:
    return {name: [model.name for model in found] for name, found in groups_of(settings).items()}


def test_models_that_refer_to_a_pool_share_it():
    settings = load_config(TEXT).settings
    a, b, c = settings.models
    assert a.pool is not None
    assert a.pool == b.pool == settings.pools["cpu"]
    assert names(settings) == {"cpu": ["a", "b"]}
    assert (a.pool.max_replicas, a.sharing.memory_bytes, a.sharing.load_s) == (3, 300 << 20, 1.0)
    assert a.pool.price_usd_per_s > 0
    assert c.pool is not None
    assert c.pool.group == ""


def test_each_process_of_a_gateway_shares_the_same():
    assert names(shared(load_config(TEXT).settings, 1, 2)) == {"cpu": ["a", "b"]}


def test_the_effective_configuration_shows_the_reference():
    masked = load_config(TEXT).settings.masked()
    assert [model["pool"] for model in masked["models"][:2]] == ["cpu", "cpu"]
    assert masked["pools"]["cpu"]["max_replicas"] == 3
    assert masked["models"][2]["pool"]["kind"] == "process"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("pool: cpu}", "pool: gpu}", "models[1].pool = gpu, must be a mapping with kind, or the"),
        ("max_replicas: 3", "max_replicas: 0", "pools.cpu.max_replicas = 0, must be"),
        ("memory: 300MiB", "memory: 2GiB", "sharing.memory = 2GiB, is more than the model_memory"),
        ("  cpu: {", "  b: {kind: process}\n  cpu: {", "pools.b is the name of a model, too"),
        ("max_replicas: 3", "adaptive: {max: 9}", "pools.cpu.adaptive cannot be learned in a"),
        ("200}, pool: cpu", '200}, version: "2", pool: cpu', "version = 2, has no effect in a"),
    ],
    ids=[
        "an unknown pool",
        "a mistake in a shared pool is told at its line",
        "a model that no replica has room for",
        "a name that a model has",
        "a learned concurrency",
        "a version",
    ],
)
def test_what_cannot_be_shared_is_refused(old, new, told):
    problems = problems_of(TEXT.replace(old, new))
    assert [problem for problem in problems if told in problem], problems


def test_a_pool_without_models_and_sharing_without_a_pool_are_warned_of():
    text = TEXT.replace("pool: {kind: process}", "pool: {kind: process}, sharing: {load: 2s}")
    text = text.replace("pools:", "pools:\n  spare: {kind: process}")
    warnings = [str(warning) for warning in load_config(text).warnings]
    assert any("pools.spare is not used" in warning for warning in warnings)
    assert any("models[2].sharing has no effect" in warning for warning in warnings)
