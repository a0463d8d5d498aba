"""What one decision costs: the real policy on the real settings of the benchmark, by timeit."""

from pathlib import Path
from random import Random
from statistics import median
from timeit import repeat

from router.assembly.runtime import assemble, new_parts
from router.backends.pool.endpoint import Endpoint
from router.domain.decision import Verdict
from router.domain.request import InferenceRequest
from router.gateway.protocols.oip import OIP
from router.policy.decide import decide
from router.policy.pickers import least_loaded
from router.runtime import ModelRuntime
from router.settings.loader import load
from router.upstream.address import parse_address
from tests.benchmarks.results import Finding
from tests.benchmarks.scenarios import BY_NAME
from tests.benchmarks.systems.gateway_settings import settings_file
from tests.benchmarks.systems.system import Site

_ROUNDS, _PASSES = 15, 20
"""Of all models, 15 times 20 passes: well under a second."""
_NOW = 1000.0
_URL = "http://127.0.0.1:9"


def decision(folder: Path) -> list[Finding]:
    """Median microseconds of the decision alone, and with the snapshots and the slot around it."""
    config = settings_file(Site(folder, port=8080, upstream_port=9), redis_url="")
    runtime = assemble(load(config, {}), new_parts())
    models = list(runtime.models.values())
    for model in models:
        _make_ready(model)
    requests = [(model, _request(model.name)) for model in models]
    states = [
        (model, request, model.state(request, _NOW, {}), _endpoints(model))
        for model, request in requests
    ]
    rng = Random(7)

    def decided() -> None:
        for model, request, state, endpoints in states:
            decide(request, model.policy, state, _NOW)
            least_loaded(endpoints, rng)

    def decided_and_reserved() -> None:
        for model, request in requests:
            decide(request, model.policy, model.state(request, _NOW, {}), _NOW)
            assert model.pool is not None
            lease = model.pool.try_reserve(request, _NOW)
            assert lease is not None
            lease.release(Verdict.OK, _NOW, None)

    calls = len(models) * _PASSES
    alone, whole = (
        median(repeat(work, number=_PASSES, repeat=_ROUNDS)) / calls * 1e6
        for work in (decided, decided_and_reserved)
    )
    title = f"decision, {len(runtime.settings.rules)} rules and {len(models)} models"
    return [
        Finding("decision", f"{title}: rules, feasibility, steering, pick", alone, "us"),
        Finding("decision-whole", f"{title}: with snapshots, slot and release too", whole, "us"),
    ]


def _make_ready(model: ModelRuntime) -> None:
    assert model.pool is not None
    model.pool.add(Endpoint(model.name, parse_address(_URL), 10_000))
    model.pool.mark_ready(model.name, is_ready=True)
    model.pool.wanted = 1


def _endpoints(model: ModelRuntime) -> list[Endpoint]:
    assert model.pool is not None
    return list(model.pool.endpoints.values())


def _request(model: str) -> InferenceRequest:
    path = BY_NAME["infer-1"].path
    return InferenceRequest("id", OIP, model, "POST", "infer", path, 300, _NOW)
