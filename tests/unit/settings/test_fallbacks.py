import pytest

from tests.unit.settings.loading import problems_of


def chains(**fallbacks) -> str:
    entries = ", ".join(
        f"{{name: {name}, slo: {{latency_ms: 100}}, pool: {{kind: process}}, fallback: {names}}}"
        for name, names in fallbacks.items()
    )
    return f"models: [{entries}]\n"


@pytest.mark.parametrize(
    "fallbacks",
    [
        {"a": "[b]", "b": "[]"},
        {"a": "[b, c]", "b": "[c]", "c": "[]"},
        {"a": "[c]", "b": "[c]", "c": "[]"},
    ],
    ids=["a chain", "two ways to the last", "shared"],
)
def test_chains_without_a_way_back_are_taken(fallbacks):
    assert problems_of(chains(**fallbacks)) == []


@pytest.mark.parametrize(
    ("fallbacks", "problems"),
    [
        ({"a": "[x]"}, ["models[0].fallback[0] = x, is not a configured model"]),
        ({"a": "[a]"}, ["models[0].fallback[0] = a, is the model itself"]),
        ({"a": "[b, b]", "b": "[]"}, ["models[0].fallback[1] = b, is named before"]),
        (
            {"a": "[b]", "b": "[a]"},
            [
                "models[0].fallback[0] = b, leads back to a: a chain must not loop",
                "models[1].fallback[0] = a, leads back to b: a chain must not loop",
            ],
        ),
        (
            {"a": "[b]", "b": "[c]", "c": "[b]"},
            [
                "models[1].fallback[0] = c, leads back to b: a chain must not loop",
                "models[2].fallback[0] = b, leads back to c: a chain must not loop",
            ],
        ),
    ],
    ids=["unknown", "itself", "twice", "a loop of two", "a loop behind"],
)
def test_what_cannot_be_followed_is_refused(fallbacks, problems):
    told = [text.partition(": ")[2] for text in problems_of(chains(**fallbacks))]
    assert told == problems


def test_what_is_wrong_otherwise_hides_no_wrong_name():
    text = (
        "models: [{name: a, slo: {latency_ms: -1}, pool: {kind: process}, fallback: [x, 5, '']}]\n"
        "rules: [{name: r, match: {model: a}, route: auto, canary: {model: y, share: 101}}]\n"
    )
    keys = [problem.partition(": ")[2].partition(" = ")[0] for problem in problems_of(text)]
    assert sorted(keys) == [
        *("models[0].fallback[0]", "models[0].fallback[1]", "models[0].fallback[2]"),
        *("models[0].slo.latency_ms", "rules[0].canary.model", "rules[0].canary.share"),
    ]
