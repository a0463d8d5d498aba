"""Replays of every kind still give the figures that they gave before they were made faster."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.replay.figures import CASES, KEPT, replayed

_FIGURES = json.loads(KEPT.read_text())


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each number, by where it stands."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(part, f"{name}/{key}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from flat(part, f"{name}/{number}")
    else:
        yield name, value


@pytest.mark.parametrize("name", CASES)
def test_figures_stay_the_same(name: str, tmp_path: Path) -> None:
    # Counts are exact. Sums of dollars may differ by how a processor rounds.
    found, kept = dict(flat(replayed(CASES[name], tmp_path))), dict(flat(_FIGURES[name]))
    assert found == {
        place: pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
        for place, value in kept.items()
    }
