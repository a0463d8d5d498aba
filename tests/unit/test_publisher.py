"""What a gateway with many models tells the others: what has changed, without looking at all."""

from collections.abc import Iterable

import pytest

from router.assembly.runtime import assemble
from router.backends.pool.endpoint import Endpoint
from router.domain.decision import Verdict
from router.publisher import Publisher
from router.runtime import ModelRuntime, Runtime, RuntimeRef
from router.signals.records import Publication
from router.signals.snapshot import ALONE, ModelTotals, SharedEndpoint
from router.upstream.address import parse_address
from tests.fakes.builders import FakeClock
from tests.fakes.runtimes import make_parts
from tests.unit.settings.loading import load_config

MODEL = """
  - name: %s
    slo: {latency_ms: 250}
    pool: {kind: process, max_replicas: 2, concurrency: 4}
"""
SHARING = """
pools:
  cpu: {kind: process, max_replicas: 3}
models:
  - {name: a, slo: {latency_ms: 100}, pool: cpu}
  - {name: b, slo: {latency_ms: 100}, pool: cpu}
"""
QUIET = Publication({}, {}, {}, {}, {})


def text_of(names: Iterable[str]) -> str:
    return "models:" + "".join(MODEL % name for name in names)


class Told:
    """A gateway's publisher, and its models."""

    def __init__(self, *names: str, text: str = "") -> None:
        self.clock = FakeClock()
        self.parts = make_parts(self.clock)
        self.ref = RuntimeRef(self._assembled(text or text_of(names), None))
        self.publisher = Publisher(self.ref, self.parts.book, lambda: ALONE, "gw", self.clock)
        self.publisher.changes()

    def _assembled(self, text: str, previous: Runtime | None) -> Runtime:
        return assemble(load_config(text), self.parts, previous)

    def reload(self, *names: str) -> None:
        self.ref.swap(self._assembled(text_of(names), self.ref.current))
        self.parts.book.retain(self.ref.current.models)
        self.publisher.look_at_all()

    def model(self, name: str) -> ModelRuntime:
        return self.ref.current.models[name]

    def with_replica(self, name: str) -> Endpoint:
        pool = self.model(name).pool
        assert pool is not None
        endpoint = Endpoint(f"{name}-1", parse_address(f"http://{name}:8000"), 4)
        pool.add(endpoint)
        pool.mark_ready(endpoint.id, is_ready=True)
        return endpoint

    def news(self) -> Publication:
        return self.publisher.changes()


@pytest.fixture
def told() -> Told:
    return Told("a", "b")


def test_models_at_rest_are_not_looked_at(told: Told) -> None:
    assert told.news() == QUIET


def test_an_arrival_is_told_once(told: Told) -> None:
    told.model("a").signals.arrived(1.0, 0.1, is_captive=False)

    assert told.news().totals == {"a": ModelTotals(1, 1.0, 0.1)}
    assert told.news() == QUIET


def test_a_replica_is_told_when_it_is_ready_and_when_it_drains(told: Told) -> None:
    endpoint = told.with_replica("a")
    assert told.news().endpoints == {"a": [SharedEndpoint("a-1", "http://a:8000", 4, "gw")]}

    pool = told.model("a").pool
    assert pool is not None
    pool.drain(endpoint.id)
    assert told.news().endpoints == {"a": None}
    pool.remove(endpoint.id)
    assert told.news().endpoints == {"a": None}
    assert told.news() == QUIET


def test_requests_in_flight_are_told_until_they_have_ended(told: Told) -> None:
    endpoint, pool = told.with_replica("a"), told.model("a").pool
    assert pool is not None
    told.news()
    for _ in range(2):
        assert pool.reserve_warm(told.clock()) is endpoint
    assert [told.news().in_flight for _ in range(2)] == [{"a-1": 2}] * 2, "looked at until it rests"

    for _ in range(2):
        pool.release(endpoint, Verdict.OK, told.clock(), told.clock())
    assert told.news().in_flight == {"a-1": None}
    assert told.news() == QUIET


def test_requests_on_shared_replicas_are_told_as_those_of_the_shared_pool() -> None:
    told = Told(text=SHARING)
    group = told.ref.current.groups["cpu"]
    host = Endpoint("cpu-1", parse_address("http://cpu:8000"), 4)
    group.pool.add(host)
    group.pool.mark_ready(host.id, is_ready=True)
    group.members.members["a"].settle(host)
    assert told.news().endpoints["cpu"] == [SharedEndpoint("cpu-1", "http://cpu:8000", 4, "gw")]

    place = group.members.members["a"].reserve_warm(told.clock())
    assert place is not None
    assert told.news().in_flight == {"cpu-1": 1}
    group.members.members["a"].release(place, Verdict.OK, told.clock(), told.clock())
    assert told.news().in_flight == {"cpu-1": None}
    assert told.news() == QUIET


def test_after_a_reload_all_models_are_looked_at_and_what_is_gone_is_told(told: Told) -> None:
    endpoint = told.with_replica("a")
    pool = told.model("a").pool
    assert pool is not None
    pool.reserve_warm(told.clock())
    told.news()
    told.reload("b", "c")

    news = told.news()
    assert (news.totals["a"], set(news.totals)) == (None, {"a", "b", "c"})
    assert news.endpoints["a"] is None
    assert news.in_flight == {endpoint.id: None}
    assert told.news() == QUIET


def test_what_could_not_be_told_is_told_later(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.model("a").signals.arrived(1.0, 0.1, is_captive=False)
    with monkeypatch.context() as broken:
        broken.setattr(told.publisher, "_canary_changes", None)
        with pytest.raises(TypeError):
            told.news()

    assert told.news().totals == {"a": ModelTotals(1, 1.0, 0.1)}
