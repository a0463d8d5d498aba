"""The files in `config/` load, teach every key, and show true defaults."""

import re
from pathlib import Path

import pytest

from router.settings.document import MappingNode, Node, SequenceNode, parse, plain
from router.settings.functions import LocalFunction
from router.settings.loader import Loaded, load, load_text
from router.settings.pools import ProcessPool
from router.settings.prices import PriceBook, built_in_prices
from router.settings.reference import main, markdown, reference
from router.settings.sources import read_bounded

CONFIG = Path(__file__).parents[3] / "config"
_COMMENTED = re.compile(r"^(\s*)# (\s*(?:- )?[a-z_]+:(?: |$))", re.MULTILINE)


def uncommented() -> str:
    """router.yaml with every commented-out line live."""
    return _COMMENTED.sub(r"\1\2", (CONFIG / "router.yaml").read_text())


def load_uncommented() -> Loaded:
    return load_text(uncommented(), environment={}, base_dir=CONFIG, read_file=read_bounded)


def keys_in(node: Node | None, prefix: str = "") -> set[str]:
    found: set[str] = set()
    if isinstance(node, MappingNode):
        for key, value in node.entries.items():
            found |= {prefix + key} | keys_in(value, f"{prefix}{key}.")
    elif isinstance(node, SequenceNode):
        for item in node.items:
            found |= keys_in(item, f"{prefix[:-1]}[].")
    return found


@pytest.mark.parametrize("name", ["router.yaml", "router.minimal.yaml", "shared.yaml"])
def test_a_bundled_configuration_loads_without_a_warning(name: str) -> None:
    assert load(CONFIG / name, {}).warnings == ()


def test_the_demo_configuration_names_every_key() -> None:
    document = parse(uncommented(), {}, "router.yaml")
    assert document.problems == ()
    assert {row.key for row in reference()} - keys_in(document.root) == set()


def test_commented_keys_show_their_defaults() -> None:
    shown, live = load_uncommented().settings, load(CONFIG / "router.yaml", {}).settings
    for group in ("server", "shared_state", "auth", "workers", "controller"):
        assert getattr(shown, group) == getattr(live, group)
    assert shown.models[:3] == live.models


def test_the_demo_models_are_as_described() -> None:
    magika, minilm, textdet = load(CONFIG / "router.yaml", {}).settings.models
    assert [model.slo.latency_s for model in (magika, minilm, textdet)] == [0.25, 0.5, 2.0]
    assert isinstance(magika.serverless, LocalFunction)
    assert (magika.serverless.memory_mb, magika.serverless.max_concurrency) == (1769, 8)
    assert isinstance(textdet.pool, ProcessPool)
    assert (textdet.pool.max_replicas, textdet.pool.concurrency) == (1, 2)


def test_the_prices_file_holds_the_built_in_prices() -> None:
    document = parse((CONFIG / "prices.yaml").read_text(), {}, "prices.yaml")
    assert PriceBook.model_validate(plain(document.root)) == built_in_prices()


def test_every_key_has_a_meaning_and_every_scalar_a_range() -> None:
    rows = reference()
    assert [row.key for row in rows if not row.help or not row.type] == []
    assert [row.key for row in rows if not row.range] == []


def test_the_reference_is_a_table_with_a_row_for_each_key() -> None:
    rows = {row.key: row for row in reference()}
    timeout = rows["shared_state.operation_timeout"]
    assert (timeout.type, timeout.default, timeout.range) == ("duration", "100ms", "50ms..250ms")
    assert rows["models[].slo.latency_ms"].default == "required"
    assert rows["models[].pool.kind"].range == "process, static, docker, kubernetes"
    assert rows["models[].pool.urls"].help.startswith("(static) ")
    lines = markdown(list(rows.values())).splitlines()
    assert len(lines) == len(rows) + 2
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}


def test_the_reference_is_printed_for_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out
    for key in ("`server.listen`", "`pool.NAME.usd_per_replica_hour`", "`sha256`"):
        assert key in printed
