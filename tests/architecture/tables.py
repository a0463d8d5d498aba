"""The reference tables of the documentation, made from the code.

`python -m tests.architecture.tables` writes them into the files; a test compares them.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from router.domain import errors
from router.domain.decision import REASON_HELP
from router.domain.errors import RouterError
from router.domain.events import EVENT_HELP
from router.gateway.responses import STATUS
from router.settings.reference import markdown, reference
from router.telemetry.families import reference_table
from tests.architecture.paths import table as paths
from tests.integration.failures.matrix import table as failures

ROOT = Path(__file__).parents[2]
_BLOCK = "<!-- table: {name} -->\n{table}\n<!-- end: {name} -->"


def tables() -> dict[tuple[str, str], str]:
    """Every generated table by file and name."""
    return {
        ("docs/routing.md", "reasons"): _reasons(),
        ("docs/endpoints.md", "paths"): paths(),
        ("docs/endpoints.md", "errors"): _errors(),
        ("docs/metrics.md", "metrics"): reference_table(),
        ("docs/operations.md", "events"): _events(),
        ("docs/operations.md", "failures"): failures(),
        ("config/REFERENCE.md", "configuration"): markdown(reference()),
    }


def written(file: str, name: str) -> str:
    """The table as the file has it now."""
    match = _pattern(name).search((ROOT / file).read_text())
    assert match is not None, f"{file} has no place for the table {name}"
    return match[1]


def _pattern(name: str) -> re.Pattern[str]:
    start, end = _BLOCK.format(name=name, table="").split("\n\n")
    return re.compile(re.escape(start) + "\n(.*?)\n?" + re.escape(end), re.DOTALL)


def _reasons() -> str:
    rows = [f"| `{reason}` | {told} |" for reason, told in REASON_HELP.items()]
    return "\n".join(["| reason | meaning |", "|---|---|", *rows])


def _events() -> str:
    rows = [f"| `{kind}` | {told} |" for kind, told in EVENT_HELP.items()]
    return "\n".join(["| kind | what is told |", "|---|---|", *rows])


def _errors() -> str:
    rows = [f"| {STATUS[kind.code]} | `{kind.code}` | {_told(kind)} |" for kind in _answered()]
    rows.append(f"| {STATUS['internal_error']} | `internal_error` | A defect of the gateway. |")
    return "\n".join(["| status | code | meaning |", "|---|---|---|", *sorted(rows)])


def _answered() -> Iterator[type[RouterError]]:
    """One class for each code: the one that introduces it."""
    seen: set[str] = set()
    for value in vars(errors).values():
        if not (isinstance(value, type) and issubclass(value, RouterError)):
            continue
        if "code" in vars(value) and value.code not in seen:
            seen.add(value.code)
            yield value


def _told(kind: type[RouterError]) -> str:
    return (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()


def main() -> None:
    """Write every table into its file."""
    for (file, name), table in tables().items():
        path = ROOT / file
        # A function, because backslashes in a replacement text would be read as escapes.
        block = partial(_block, name, table)
        path.write_text(_pattern(name).sub(block, path.read_text()))


def _block(name: str, table: str, _match: re.Match[str]) -> str:
    return _BLOCK.format(name=name, table=table)


if __name__ == "__main__":
    main()
