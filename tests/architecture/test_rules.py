"""The table of rules in docs/architecture.md names what is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(
    r"^\| (?P<rule>[^|`]+) \| `(?P<file>[\w/]+\.py)` \| `(?P<name>\w+)` \|$", re.MULTILINE
)
ROWS = [match.groups() for match in ROW.finditer((ROOT / "docs/architecture.md").read_text())]


def test_there_is_a_table():
    assert len(ROWS) > 20
    assert len({rule for rule, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("rule", "file", "name"), ROWS, ids=[rule for rule, _, _ in ROWS])
def test_each_rule_is_where_it_says(rule, file, name):
    tree = ast.parse((ROOT / "router" / file).read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}, rule
