"""Whatever the files hold, loading gives settings or a ConfigError whose problems fit on a line."""

from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from router.settings.loader import ConfigError, load_text
from router.settings.reference import reference

KEYS = sorted({part for row in reference() for part in row.key.replace("[]", "").split(".")})
VALID = """
server: {processes: 2}
models:
  - name: a
    slo: {latency_ms: 100}
    serverless: {kind: local}
    pool: {kind: process, env: {A: b}}
rules: [{name: r, match: {payload: ">1MiB", header: {a: b}}, route: {pool: 1}}]
prices: p.yaml
auth: {api_keys_file: k.yaml}
"""

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["local", "process", "static", "aws_lambda", "auto", "1s", ">1MiB", "${A}"]),
)  # fmt: skip
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=8))
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6)),
    max_leaves=30,
)


def outcome(config: str | bytes, included: bytes = b"") -> list[str] | None:
    def read_file(path: Path) -> bytes:
        if path.name == "gone":
            raise OSError
        return included

    try:
        load_text(config, environment={"A": "b"}, base_dir=Path("/"), read_file=read_file)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return None


def is_told_well(problems: list[str] | None) -> bool:
    """No problems list at all, or at least one problem, each on a line of its own."""
    return problems is None or (
        bool(problems) and all(len(problem.splitlines()) == 1 for problem in problems)
    )


@settings(deadline=None)
@given(st.one_of(st.text(), st.binary(), st.text(alphabet="[]{}:-&*a\n\t \"'|>#!%@`$,?0")))
def test_any_text_or_bytes_load_or_are_refused(content: str | bytes) -> None:
    assert is_told_well(outcome(content))
    assert is_told_well(
        outcome(
            VALID, content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        )
    )


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("server", "models", "rules"), trees)))
def test_any_tree_of_known_keys_loads_or_is_refused(tree: dict[str, object]) -> None:
    assert is_told_well(outcome(yaml.safe_dump(tree)))


@settings(deadline=None)
@given(
    name=st.text(max_size=8), serverless=trees, pool=trees, slo=trees, match=trees, route=trees
)  # fmt: skip
def test_any_model_and_rule_load_or_are_refused(
    name: str, serverless: object, pool: object, slo: object, match: object, route: object
) -> None:
    model = {"name": name, "serverless": serverless, "pool": pool, "slo": slo}
    rule = {"name": name, "match": match, "route": route}
    assert is_told_well(outcome(yaml.safe_dump({"models": [model], "rules": [rule]})))


@settings(deadline=None)
@given(st.data())
def test_any_damage_to_a_valid_file_loads_or_is_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(VALID)))
    removed = data.draw(st.integers(0, 10))
    added = data.draw(st.text(max_size=5))
    assert is_told_well(
        outcome(VALID[:place] + added + VALID[place + removed :], b"dated: 2026-11-01")
    )
