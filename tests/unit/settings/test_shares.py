import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.settings.shares import share, shared
from tests.unit.settings.loading import load_config, problems_of

TEXT = """
server: {{processes: {processes}, max_connections: {connections}, max_buffered: {buffered}}}
shared_state: {{redis_url: "redis://127.0.0.1:1"}}
models:
  - name: m
    slo: {{latency_ms: 100}}
    serverless: {{kind: local, max_concurrency: {calls}, queue: {{max_requests: 7}}}}
    pool: {{kind: static, urls: ["http://127.0.0.1:1"], queue: {{max_requests: 5, max_bytes: 11}}}}
"""


def text(processes=3, connections=10, buffered="640MiB", calls=8) -> str:
    return TEXT.format(processes=processes, connections=connections, buffered=buffered, calls=calls)


@given(total=st.integers(0, 10_000), of=st.integers(1, 64))
def test_shares_add_up_and_are_alike(total, of):
    shares = [share(total, number, of) for number in range(1, of + 1)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_every_total_is_divided():
    settings = load_config(text()).settings
    parts = [shared(settings, number, 3) for number in (1, 2, 3)]
    models = [part.models[0] for part in parts]
    assert [part.server.max_connections for part in parts] == [4, 3, 3]
    assert sum(part.server.max_buffered_bytes for part in parts) == 640 << 20
    assert [model.serverless.max_concurrency for model in models if model.serverless] == [3, 3, 2]
    assert [model.serverless.queue.max_requests for model in models if model.serverless] == [
        3, 2, 2,
    ]  # fmt: skip
    queues = [model.pool.queue for model in models if model.pool]
    assert [queue.max_requests for queue in queues] == [2, 2, 1]
    assert sum(queue.max_bytes for queue in queues) == 11


def test_one_process_has_it_all():
    settings = load_config(text(processes=1)).settings
    assert shared(settings, 1, 1) == settings


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"connections": 2}, "server.max_connections = 2, must be at least server.processes (3)"),
        (
            {"buffered": "100MiB"},
            (
                "server.max_buffered = 100MiB, must be at least server.processes (3) times"
                " server.max_body"
            ),
        ),
        (
            {"calls": 2},
            (
                "models[0].serverless.max_concurrency = 2, must be at least server.processes (3):"
                " each of them calls for itself"
            ),
        ),
    ],
    ids=["connections", "bodies", "calls"],
)
def test_what_cannot_be_divided_is_refused(facts, problem):
    (told,) = problems_of(text(**facts))
    assert told.partition(": ")[2] == problem
    assert problems_of(text(**facts, processes=1)) == []
