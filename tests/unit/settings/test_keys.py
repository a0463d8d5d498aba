import hashlib

import pytest

from router.settings.keys import KeyRing, hash_key
from tests.unit.settings.loading import MODEL, load_config, problems_of

CONFIG = f"{MODEL}auth: {{api_keys_file: k.yaml}}\n"
SHA = hash_key("key-of-nightly")
ENTRY = f"name: a, tenant: t, sha256: {SHA}"


def ring_of(keys: str) -> KeyRing:
    return load_config(CONFIG, files={"k.yaml": keys}).keys


def test_a_key_is_found_by_its_hash() -> None:
    ring = ring_of(
        f"- {{name: night, tenant: batch, sha256: {SHA}, rate_per_s: 5, burst: 9, models: 'b*'}}\n"
        f"- {{name: web, tenant: shop, sha256: {hash_key('other')}}}\n"
    )
    found = ring.find("key-of-nightly")
    assert found is not None
    assert (found.name, found.tenant, found.rate_per_s, found.burst) == ("night", "batch", 5, 9)
    assert found.models == ("b*",)
    assert len(ring) == 2
    assert not ring.is_open


@pytest.mark.parametrize("key", ["", "key-of-nightly ", SHA, "x" * 10_000, "\ud800", "\x00"])
def test_anything_else_is_nobodys_key(key: str) -> None:
    assert ring_of(f"- {{{ENTRY}}}").find(key) is None


def test_the_hash_is_plain_sha256_so_that_any_tool_can_make_it() -> None:
    assert hash_key("k") == hashlib.sha256(b"k").hexdigest()


def test_a_ring_is_open_only_without_a_keys_file() -> None:
    assert load_config(MODEL).keys.is_open
    assert load_config(MODEL).keys.find("any") is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", "/etc/router/k.yaml: is empty"),
        ("[]", "/etc/router/k.yaml:1: must have at least 1 entries"),
        ("{a: 1}", "/etc/router/k.yaml:1: must be a list"),
        (
            "- {name: a, tenant: t}",
            "/etc/router/k.yaml:1: [0].sha256 is required, must be the 64 low",
        ),
        (
            "- {name: a, tenant: t, sha256: sk-raw-key}",
            "/etc/router/k.yaml:1: [0].sha256 = ***, must",
        ),
        (
            f"- {{{ENTRY}, rate_per_s: 0}}",
            "/etc/router/k.yaml:1: [0].rate_per_s = 0, must be a numb",
        ),
        (
            f"- {{{ENTRY}, burst: 5}}",
            "/etc/router/k.yaml:1: [0].burst = 5, needs rate_per_s beside",
        ),
        (f"- {{{ENTRY}, tennant: x}}", "/etc/router/k.yaml:1: [0].tennant = x, is not a known key"),
    ],
)
def test_a_broken_keys_file_never_opens_the_gateway(keys: str, told: str) -> None:
    (problem,) = problems_of(CONFIG, files={"k.yaml": keys})
    assert problem.startswith(told)


def test_names_and_hashes_are_unique() -> None:
    entries = [ENTRY, f"name: b, tenant: t, sha256: {SHA}"]
    entries += [f"name: b, tenant: t, sha256: {hash_key('x')}"]
    keys = "".join(f"- {{{entry}}}\n" for entry in entries)
    problems = problems_of(CONFIG, files={"k.yaml": keys})
    assert [problem.split(": ", 1)[1] for problem in problems] == [
        "[1].sha256 = ***, must be unique (also on line 1)",
        "[2].name = b, must be unique (also on line 2)",
    ]


def test_a_missing_keys_file_is_a_problem() -> None:
    (problem,) = problems_of(CONFIG)
    place = "router.yaml:2: auth.api_keys_file = k.yaml, /etc/router/k.yaml"
    assert problem == f"{place}: cannot be read: No such file or directory"


@pytest.mark.parametrize("budget", ["usd_per_day: 5", "usd_per_day: 5, usd_per_month: 100"])
def test_tenants_may_have_budgets(budget: str) -> None:
    text = f"{CONFIG}budgets: [{{tenant: t, {budget}}}]\n"
    loaded = load_config(text, files={"k.yaml": f"- {{{ENTRY}}}\n"})
    assert [(each.tenant, each.usd_per_day) for each in loaded.settings.budgets] == [("t", 5)]
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        ("{tenant: t}", "budgets[0] needs usd_per_day, usd_per_month, or both"),
        ("{tenant: t, usd_per_day: 0}", "budgets[0].usd_per_day = 0, must be a number"),
        ("{tenant: t, usd_per_week: 5}", "budgets[0].usd_per_week = 5, is not a known key"),
        (
            "{tenant: t, usd_per_day: 1}, {tenant: t, usd_per_day: 2}",
            "budgets[1].tenant = t, must be unique",
        ),
    ],
)
def test_wrong_budgets(budgets: str, told: str) -> None:
    text = f"{CONFIG}budgets: [{budgets}]\n"
    (problem,) = problems_of(text, files={"k.yaml": f"- {{{ENTRY}}}\n"})
    assert told in problem


@pytest.mark.parametrize("text", [MODEL, CONFIG], ids=["no keys", "other keys"])
def test_a_budget_that_nobody_can_spend_is_warned_of(text: str) -> None:
    text += "budgets: [{tenant: other, usd_per_day: 1}]\n"
    (warning,) = load_config(text, files={"k.yaml": f"- {{{ENTRY}}}\n"}).warnings
    assert "budgets[0].tenant = other, is not the tenant of a key" in str(warning)
