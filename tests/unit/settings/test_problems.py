"""Each mistake is told with file, line, key, value and what would have been right."""

import pytest

from router.settings.functions import LocalFunction
from router.settings.loader import ConfigError
from tests.unit.settings.loading import MODEL, load_config, problems_of

MISTAKES = [
    ("server: {processes: 99}", "server.processes = 99, must be a whole number in 1..64"),
    ("server: {procesess: 2}", "server.procesess = 2, is not a known key, did you mean processes?"),
    ("zzz: 1", "zzz = 1, is not a known key, the known ones are server, shared_state, auth"),
    ("server: {backend_hint: maybe}", "server.backend_hint = maybe, must be one of deny, allow"),
    ("server: 5", "server = 5, must be a mapping (key: value)"),
    ("server: [1]", "server must be a mapping (key: value)"),
    ("server: {body_timeout: 30}", "server.body_timeout = 30, must be a duration with a unit"),
    ("server: {max_body: 1GB, max_buffered: 1MB}", "server.max_buffered = 1MB, must be at least"),
    ("server: {listen: 'a:1', admin_listen: 'a:1'}", "server.admin_listen = a:1, must differ from"),
    ("shared_state: {operation_timeout: 1s}", "shared_state.operation_timeout = 1s, must be a dur"),
    ("shared_state: {redis_url: http://h}", "shared_state.redis_url = http://h, must be a URL st"),
    ("server: {listen: '127.0.0.1:9090'}", "server.admin_listen must differ from server.listen"),
    (
        "server: {max_body_bytes: 7}",
        "server.max_body_bytes = 7, is not a known key, did you mean max",
    ),
    ("server: {max_body: 1GB}", "server.max_buffered must be at least server.max_body"),
    ("workers: {threads: no}", "workers.threads = no, must be a whole number in 1..256"),
    ("prices: 7", "prices = 7, must be a path relative to this file or empty"),
    ("rules: 7", "rules = 7, must be a list"),
    ("rules: [7]", "rules[0] = 7, must be a mapping (key: value)"),
    ("rules: [{name: a}]", "rules[0].route is required, must be one of auto, pool, serverless, or"),
    ("rules: [{name: a, route: nowhere}]", "rules[0].route = nowhere, must be one of auto, pool"),
    ("rules: [{name: a, route: {pool: 101000}}]", "rules[0].route.pool = 101000, must be a whole"),
    (
        "rules: [{name: a, route: {pool: 0}}]",
        "rules[0].route.pool = 0, must be above 0 when server",
    ),
    ("rules: [{name: a, route: {}}]", "rules[0].route.pool must be above 0 when serverless is 0"),
    (
        "rules: [{name: a, route: {serverless: 5, pol: 1}}]",
        "rules[0].route.pol = 1, is not a known key, did you",
    ),
    ("rules: [{name: 'a b', route: auto}]", "rules[0].name = a b, must be 1..100 characters of"),
    (
        "rules: [{name: a, route: auto, match: {payload: 1MB}}]",
        "rules[0].match.payload = 1MB, must",
    ),
    (
        "rules: [{name: a, route: auto, match: {version: 1.10}}]",
        "rules[0].match.version = 1.10, mus",
    ),
    (
        "rules: [{name: a, route: auto, match: {header: {'a b': x}}}]",
        "rules[0].match.header.a b = x",
    ),
    (
        "rules: [{name: a, route: auto, match: {header: {a: 1}}}]",
        "rules[0].match.header.a = 1, must",
    ),
    (
        "rules: [&r {name: a, route: auto}, *r]",
        "rules[1].name = a, must be unique (also on line 1)",
    ),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_mistake_names_key_value_and_range(text: str, told: str) -> None:
    (problem,) = problems_of(f"{text}\n{MODEL}")
    assert problem.startswith(f"router.yaml:1: {told}")


MODEL_MISTAKES = [
    ("pool: {kind: process}", "slo is required, must be a mapping (key: value)"),
    (
        "slo: {}, pool: {kind: process}",
        "slo.latency_ms is required, must be a number of millisecon",
    ),
    (
        "slo: {latency_ms: -5}, pool: {kind: process}",
        "slo.latency_ms = -5, must be a number of mil",
    ),
    (
        "slo: {latency_ms: .nan}, pool: {kind: process}",
        "slo.latency_ms = .nan, must be a number of",
    ),
    ("slo: {latency_ms: 1}", "pool is required when there is no serverless: a model needs at lea"),
    (
        "slo: {latency_ms: 1}, attempts: 6, pool: {kind: process}",
        "attempts = 6, must be a whole num",
    ),
    (
        "slo: {latency_ms: 1}, idempotent: yes, pool: {kind: process}",
        "idempotent = yes, must be tru",
    ),
    (
        "slo: {latency_ms: 1}, serverless: {kind: lokal}",
        "serverless.kind = lokal, must be one of l",
    ),
    ("slo: {latency_ms: 1}, serverless: {}", "serverless.kind must be one of local, aws_lambda"),
    ("slo: {latency_ms: 1}, serverless: x", "serverless = x, must be a mapping with kind: one of"),
    (
        "slo: {latency_ms: 1}, serverless: {kind: aws_lambda, function: f}",
        "serverless.region is req",
    ),
    (
        "slo: {latency_ms: 1}, serverless: {kind: local, timeout: 16m}",
        "serverless.timeout = 16m, mu",
    ),
    (
        "slo: {latency_ms: 1}, serverless: {kind: local, region: eu-central-1}",
        "serverless.region = ",
    ),
    (
        "slo: {latency_ms: 1}, serverless: {kind: local, price: {usd_per_gb_s: 2}}",
        "serverless.price",
    ),
    (
        "slo: {latency_ms: 1}, serverless: {kind: local, price: 2}",
        "serverless.price = 2, must be a",
    ),
    ("slo: {latency_ms: 1}, pool: {kind: process, max_replicas: 0}", "pool.max_replicas = 0, must"),
    (
        "slo: {latency_ms: 1}, pool: {kind: process, min_replicas: 2}",
        "pool.max_replicas must be at",
    ),
    (
        "slo: {latency_ms: 1}, pool: {kind: process, packing: 1.5}",
        "pool.packing = 1.5, must be a n",
    ),
    (
        "slo: {latency_ms: 1}, pool: {kind: process, command: [x]}",
        "pool.command must contain {socket} or {port}",
    ),
    (
        "slo: {latency_ms: 1}, pool: {kind: process, env: {1a: x}}",
        "pool.env.1a = x, must be 1..200",
    ),
    (
        "slo: {latency_ms: 1}, pool: {kind: static, urls: []}",
        "pool.urls must have at least 1 entries",
    ),
    ("slo: {latency_ms: 1}, pool: {kind: static, urls: ['http://a', b]}", "pool.urls[1] = b, must"),
    (
        "slo: {latency_ms: 1}, pool: {kind: static, urls: ['http://u:pw@h']}",
        "pool.urls[0] = http:/",
    ),
]


@pytest.mark.parametrize(
    ("model", "told"), MODEL_MISTAKES, ids=[model for model, _ in MODEL_MISTAKES]
)
def test_a_mistake_in_a_model_names_key_value_and_range(model: str, told: str) -> None:
    (problem,) = problems_of(f"models:\n  - {{name: m, {model}}}\n")
    assert problem.startswith(f"router.yaml:2: models[0].{told}")


@pytest.mark.parametrize(
    "name", ["", "a b", "a\\nb", "/a", "a/", "a//b", "é", "x" * 201, "a:predict", "a?"]
)
def test_a_model_name_fits_into_a_path(name: str) -> None:
    text = f'models: [{{name: "{name}", slo: {{latency_ms: 1}}, pool: {{kind: process}}}}]'
    (problem,) = problems_of(text)
    assert "models[0].name = " in problem
    assert "must be 1..200 characters" in problem


@pytest.mark.parametrize("name", ["bert", "org/bert-base.v1", "a" * 200])
def test_a_model_name_may_have_parts(name: str) -> None:
    text = f"models: [{{name: {name}, slo: {{latency_ms: 1}}, serverless: {{kind: local}}}}]"
    model = load_config(text).settings.models[0]
    assert isinstance(model.serverless, LocalFunction)
    assert (model.name, model.serverless.function) == (name, name)


def test_all_problems_come_at_once_in_the_order_of_the_lines() -> None:
    text = (
        "server:\n  processes: 0\n"
        "models:\n  - name: a\n    slo: {latency_ms: 0}\n    pool: {kind: process}\n"
        "  - name: a\n    slo: {latency_ms: 5}\n    typo: 1\n"
        "rules:\n  - {name: r, route: here}\n"
        "prices: gone.yaml\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(text)
    lines = [(problem.line, problem.key) for problem in caught.value.problems]
    assert lines == [
        (2, "server.processes"),
        (5, "models[0].slo.latency_ms"),
        (7, "models[1].pool"),
        (7, "models[1].name"),
        (9, "models[1].typo"),
        (11, "rules[0].route"),
        (12, "prices"),
    ]
    assert "gone.yaml: cannot be read: No such file or directory" in str(caught.value)


def test_more_problems_than_fit_are_counted() -> None:
    rules = "\n".join(f"  - {{name: r{index}, route: x}}" for index in range(150))
    with pytest.raises(ConfigError) as caught:
        load_config(f"{MODEL}rules:\n{rules}\n")
    assert len(caught.value.problems) == 150
    assert str(caught.value).endswith("... and 50 more")


@pytest.mark.parametrize(
    ("count", "refused"), [(1000, False), (1001, True)], ids=["1000 models", "1001 models"]
)
def test_models_are_bounded(count: int, *, refused: bool) -> None:
    models = "\n".join(
        f"  - {{name: m{index}, slo: {{latency_ms: 1}}, pool: {{kind: process}}}}"
        for index in range(count)
    )
    problems = problems_of(f"models:\n{models}\n")
    assert [problem.split(": ", 1)[1] for problem in problems] == (
        ["models must have at most 1000 entries"] if refused else []
    )


@pytest.mark.parametrize(
    "text", ["shared_state: {redis_url: 'amqp://user:hunter2@h'}", "server: {listen: '${SECRET}'}"]
)
def test_a_problem_never_shows_a_secret(text: str) -> None:
    (problem,) = problems_of(f"{text}\n{MODEL}", {"SECRET": "hunter2"})
    assert "hunter2" not in problem


def test_a_long_or_unprintable_value_is_shown_on_one_short_line() -> None:
    (problem,) = problems_of(f'server: {{listen: "a\\nb{"x" * 500}"}}\n{MODEL}')
    assert "\n" not in problem
    assert "a\\nb" in problem
    assert len(problem) < 300
