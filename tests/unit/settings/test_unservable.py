"""What can never serve, or never as it was meant, is told where it stands."""

from tests.unit.settings.loading import BASE, load_config, problems_of

PRICES = "prices.yaml"
FUNCTION = 'serverless: {kind: http_function, url: "http://x"}'


def test_all_missing_price_keys_are_named_at_once() -> None:
    text = (
        f"prices: {PRICES}\nmodels:\n"
        f"  - {{name: a, slo: {{latency_ms: 1}}, {FUNCTION}}}\n"
        "  - {name: b, slo: {latency_ms: 1}, pool: {kind: process}}\n"
    )
    function, pool = problems_of(text, files={PRICES: "dated: 2026-11-01"})
    assert function.startswith("router.yaml:3: models[0].serverless.price is required")
    assert function.endswith("with usd_per_request, usd_per_gb_s")
    assert pool.startswith("router.yaml:4: models[1].pool.price_per_replica_hour is required")


def test_a_backend_without_anything_below_it_is_a_mistake() -> None:
    text = (
        "models:\n  - name: a\n    slo: {latency_ms: 1}\n    serverless: {kind: local}\n    pool:\n"
    )
    (problem,) = problems_of(text)
    assert problem.startswith("router.yaml:5: models[0].pool")
    assert "is empty: leave it out" in problem


def test_keys_for_models_that_do_not_exist_are_warned_of() -> None:
    keys = (
        f"- {{name: a, tenant: t, sha256: {'a' * 64}, models: [mymodel, my*]}}\n"
        f"- {{name: b, tenant: t, sha256: {'b' * 64}, models: [mymodle, 'other-*', mymodel]}}\n"
        f"- {{name: c, tenant: t, sha256: {'c' * 64}}}\n"
    )
    text = (
        "auth: {api_keys_file: keys.yaml}\n"
        "models: [{name: mymodel, slo: {latency_ms: 1}, serverless: {kind: local}}]\n"
    )
    warnings = load_config(text, files={"keys.yaml": keys}).warnings
    assert [(w.file, w.line, w.key, w.message) for w in warnings] == [
        (str(BASE / "keys.yaml"), 2, "[1].models", "matches no model (mymodle)"),
        (str(BASE / "keys.yaml"), 2, "[1].models", "matches no model (other-*)"),
    ]


def test_two_models_do_not_size_one_deployment() -> None:
    pool = "kind: kubernetes, service: s, deployment: d"
    text = (
        "models:\n"
        f"  - {{name: a, slo: {{latency_ms: 1}}, pool: {{{pool}, namespace: one}}}}\n"
        f"  - {{name: b, slo: {{latency_ms: 1}}, pool: {{{pool}, namespace: two}}}}\n"
        f"  - {{name: c, slo: {{latency_ms: 1}}, pool: {{{pool}, namespace: one}}}}\n"
        f"  - {{name: d, slo: {{latency_ms: 1}}, pool: {{{pool}, namespace: one, size: external}}}}"
    )
    (problem,) = problems_of(text)
    assert problem.startswith("router.yaml:4: models[2].pool.deployment = d, is sized for")
    assert "model a already" in problem
