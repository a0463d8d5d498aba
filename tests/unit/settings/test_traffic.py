"""Canaries and shadows in the settings: what is refused, where, and why."""

import pytest

from tests.unit.settings.loading import load_config, problems_of

MODELS = """
models:
  - {name: m, slo: {latency_ms: 100}, pool: {kind: process}}
  - {name: n, served_as: m, slo: {latency_ms: 100}, pool: {kind: process}}
"""


def rule(rest: str, match: str = "{model: m}") -> str:
    return f"{MODELS}rules:\n  - {{name: r, match: {match}, route: auto, {rest}}}\n"


@pytest.mark.parametrize(
    ("rest", "match", "problem"),
    [
        ("canary: {model: n}", "{model: m}", "canary.share is required"),
        ("canary: {share: 5}", "{model: m}", "canary.version is required when there is no model"),
        ("canary: {model: m, share: 5}", "{model: m}", "must not be the model that the rule is"),
        ("canary: {model: x, share: 5}", "{model: m}", "canary.model = x, is not the name of a"),
        ("canary: {model: n, share: 101}", "{model: m}", "canary.share = 101, must be a number in"),
        ("canary: {model: n, share: 5}", "{model: 'm*'}", "needs match.model to be one model's"),
        ("canary: {model: n, share: 5}", "{model: [m, o]}", "needs match.model to be one model's"),
        ("canary: {model: n, share: 5}", "{}", "needs match.model to be one model's name"),
        ("canary: {model: n, share: 5, sticky: user}", "{model: m}", "sticky = user, must be"),
        ("canary: {model: n, share: 5, sticky: 'header:'}", "{model: m}", "header:NAME"),
        ("canary: {model: n, version: 2, share: 5}", "{model: m}", "canary.version = 2, must be"),
        ("shadow: {share: 5}", "{model: m}", "shadow.model is required"),
        ("shadow: {model: m}", "{model: m}", "must not be the model that the rule is"),
        ("shadow: {model: x}", "{model: m}", "shadow.model = x, is not the name of a"),
        ("shadow: {model: n}", "{}", "needs match.model to be one model's name"),
        ("shadow: {model: n, compare: {sample: 2}}", "{model: m}", "must be a number in 0..1"),
        (
            "canary: {model: n, share: 5, rollback: {confidence: 1}}",
            "{model: m}",
            "rollback.confidence = 1, must be a number in 0.9..0.999999",
        ),
    ],
)
def test_what_is_refused(rest, match, problem):
    found = problems_of(rule(rest, match))
    assert len(found) == 1
    assert problem in found[0]
    assert f"rules[0].{rest.partition(':')[0]}" in found[0]


def test_a_canary_as_it_is_understood():
    text = rule('canary: {version: "2", share: 0.5, sticky: "header:X-User"}')
    canary = load_config(text).settings.rules[0].canary
    assert canary is not None
    assert (canary.model, canary.version, canary.share) == (None, "2", 0.5)
    assert canary.sticky_header == "x-user"
    assert canary.rollback.enabled
    assert canary.rollback.window_s == 300


def test_the_name_for_the_backends():
    models = load_config(MODELS).settings.models
    assert [model.backend_name for model in models] == ["m", "m"]
