"""The kinds of function: defaults of each platform, prices, and mistakes told with their line."""

import pytest

from router.settings.functions import HttpFunction
from router.settings.quantities import MIB
from tests.unit.settings.loading import load_config, problems_of

HEAD = "models:\n  - name: m\n    slo: {latency_ms: 100}\n    serverless:\n"
AWS = "kind: aws_lambda\nfunction: f\nregion: eu-central-1"
LIVE = f"{AWS}\nqualifier: live"
MANAGED = "managed_instances: {count: 1, price_per_instance_hour: 1}"
GOOGLE = "kind: google_function\nurl: https://x.run.app"
AZURE = "kind: azure_function\nurl: https://x.azurewebsites.net"
HTTP = "kind: http_function\nurl: http://x/function/m"
PRICED = f"{HTTP}\nprice: {{usd_per_request: 0, usd_per_gb_s: 0}}"


def text(serverless: str) -> str:
    return HEAD + "".join(f"      {line}\n" for line in serverless.splitlines())


def function(serverless: str, **environment: str):
    return load_config(text(serverless), environment).settings.models[0].serverless


@pytest.mark.parametrize(
    ("serverless", "payload", "usd_per_vcpu_s", "min_billed_s", "step_s"),
    [
        (AWS, 6_291_556, 0.0, 0.0, 0.0),
        (GOOGLE, 32 * MIB, 0.000024, 0.0, 0.1),
        (AZURE, 100_000_000, 0.0, 0.1, 0.0),
        (PRICED, 32 * MIB, 0.0, 0.0, 0.0),
    ],
    ids=["Lambda", "Google", "Azure", "other"],
)
def test_limits_and_prices_are_the_platforms(
    serverless, payload, usd_per_vcpu_s, min_billed_s, step_s
):
    found = function(serverless)
    assert found.limits.max_payload_bytes == payload
    price = found.price
    assert (price.usd_per_vcpu_s, price.min_billed_s, price.billing_step_s) == (
        usd_per_vcpu_s,
        min_billed_s,
        step_s,
    )


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        ("", 6_291_556),
        ("\ninvoke_mode: response_stream", 200 * MIB),
        ("\ninvoke_mode: response_stream\nlimits: {max_payload: 1MiB}", 200 * MIB),
        ("\ninvoke_mode: response_stream\nlimits: {max_response: 9MiB}", 9 * MIB),
    ],
    ids=["buffered", "streamed", "another limit is set", "this limit is set"],
)
def test_a_streamed_answer_may_be_longer(lines, limit):
    assert function(AWS + lines).limits.max_response_bytes == limit


def test_prices_of_what_aws_keeps_warm():
    price = function(AWS).price
    found = (price.provisioned_usd_per_gb_s, price.provisioned_call_usd_per_gb_s)
    assert (*found, price.managed_fee_ratio) == (0.0000041667, 0.0000097222, 0.15)


MISTAKES = {
    "provisioned concurrency of the latest": (
        f"{AWS}\nprovisioned_concurrency: 1",
        "serverless.provisioned_concurrency",
        "needs a version or alias",
    ),
    "more provisioned than can be called": (
        f"{LIVE}\nmax_concurrency: 5\nprovisioned_concurrency: 6",
        "serverless.provisioned_concurrency",
        "is over max_concurrency",
    ),
    "provisioned and managed": (
        f"{LIVE}\nprovisioned_concurrency: 1\n{MANAGED}",
        "serverless.managed_instances",
        "excludes provisioned_concurrency",
    ),
    "managed instances without a price": (
        f"{AWS}\nmanaged_instances: {{count: 2}}",
        "managed_instances.price_per_instance_hour",
        "is required",
    ),
    "a price of its own is needed": (HTTP, "models[0].serverless.price", "is required"),
    "Azure cuts at 230 s": (f"{AZURE}\ntimeout: 231s", "serverless.timeout", "100ms..230s"),
    "Lambda at 900 s": (f"{AWS}\ntimeout: 901s", "serverless.timeout", "100ms..15m"),
    "two ways to call": (
        f"{AWS}\nqualifier: live\nfunction_url: https://x.on.aws",
        "serverless.function_url",
        "excludes qualifier and endpoint_url",
    ),
    "a URL with a secret": (
        f"{AZURE}?code=secret",
        "serverless.url",
        "without user, password, query or fragment",
    ),
    "a header about the connection": (
        f"{PRICED}\nheaders: {{Content-Length: '1'}}",
        "serverless.headers",
        "not about the connection",
    ),
    "a header that would end": (
        f'{PRICED}\nheaders: {{x: "a\\nb"}}',
        "serverless.headers.x",
        "without control characters",
    ),
    "a key without its certificate": (
        f"{AWS}\ntls: {{key_file: k}}",
        "serverless.tls.key_file",
        "needs cert_file",
    ),
    "a workload without a name": (
        f"{AZURE}\nidentity: {{resource: r, tenant_id: t, token_file: k}}",
        "serverless.identity.token_file",
        "needs client_id and tenant_id",
    ),
    "a workload without a tenant": (
        f"{AZURE}\nidentity: {{resource: r, client_id: c, token_file: k}}",
        "serverless.identity.token_file",
        "needs client_id and tenant_id",
    ),
    "a slash too many": (f"{AZURE}\nroute_prefix: /api/", "route_prefix", "without a slash"),
    "a key of another kind": (f"{GOOGLE}\nkey_file: k", "key_file", "is not a known key"),
    "no such way to prove": (f"{AWS}\nauth: basic", "serverless.auth", "iam, none"),
}


@pytest.mark.parametrize(("serverless", "key", "told"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told(serverless, key, told):
    problems = problems_of(text(serverless))
    assert len(problems) == 1
    assert key in problems[0]
    assert told in problems[0]
    assert "secret" not in problems[0]


def test_header_values_come_from_the_environment_and_are_never_shown():
    headers = 'headers: {x-tenant: "${TENANT}", Authorization: "Bearer ${TOKEN}"}'
    loaded = load_config(text(f"{PRICED}\n{headers}"), {"TOKEN": "t0p", "TENANT": "acme"})
    model = loaded.settings.models[0]
    assert isinstance(model.serverless, HttpFunction)
    assert dict(model.serverless.headers) == {"x-tenant": "acme", "Authorization": "Bearer t0p"}
    shown = loaded.settings.masked()["models"][0]["serverless"]["headers"]
    assert shown == {"x-tenant": "***", "Authorization": "***"}
