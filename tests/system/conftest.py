"""Tests with system packages; `make test-system` installs them and runs these."""

from pathlib import Path

import pytest

from tests.integration.end_to_end.conftest import repository, start_gateway

__all__ = ["repository", "start_gateway"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)
