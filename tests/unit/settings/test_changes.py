import hashlib

import pytest

from router.settings.changes import changes
from router.settings.keys import ApiKey, KeyRing
from tests.unit.settings.loading import load_config

BASE = """
models:
  - name: m
    slo: {latency_ms: 250}
    serverless: {kind: aws_lambda, function: f, region: eu-central-1}
  - name: n
    slo: {latency_ms: 250}
    serverless:
      kind: http_function
      url: "http://127.0.0.1:1"
      price: {usd_per_request: 0, usd_per_gb_s: 0}
      headers: {authorization: one}
rules:
  - {name: all, route: auto}
"""
NOBODY = KeyRing()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("latency_ms: 250", "latency_ms: 250", []),
        (
            "name: m\n    slo: {latency_ms: 250}", "name: m\n    slo: {latency_ms: 300}",
            [("models[m].slo.latency_ms", "250.0", "300.0")],
        ),
        ("authorization: one", "authorization: two",
         [("models[n].serverless.headers.authorization", '"***"', 'another "***"')]),
        ("route: auto", "route: serverless", [("rules[all].route", '"auto"', '"serverless"')]),
        ("name: m\n", "name: k\n", [
            ("models[k]", "absent", "configured"), ("models[m]", "configured", "absent"),
        ]),
    ],
    ids=["nothing", "a number", "a header", "a rule", "a model for another"],
)  # fmt: skip
def test_each_key_that_changed_is_told_and_no_secret(old, new, expected):
    assert old in BASE
    before = load_config(BASE).settings
    after = load_config(BASE.replace(old, new, 1)).settings
    assert [tuple(change) for change in changes(before, after, NOBODY, NOBODY)] == expected


def test_keys_are_told_without_their_hashes():
    settings = load_config(BASE).settings

    def ring(secret: str, rate_per_s: float) -> KeyRing:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return KeyRing([ApiKey(name="k", sha256=digest, tenant="t", rate_per_s=rate_per_s)])

    assert [
        tuple(change) for change in changes(settings, settings, ring("a", 1.5), ring("b", 2.5))
    ] == [
        ("api_keys[k].rate_per_s", "1.5", "2.5"),
        ("api_keys[k].sha256", '"***"', 'another "***"'),
    ]
    assert [tuple(change) for change in changes(settings, settings, NOBODY, ring("b", 2))] == [
        ("api_keys[k]", "absent", "configured"),
    ]
