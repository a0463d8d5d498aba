"""Tests with system packages; `make test-system` installs them and runs these."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.end_to_end.conftest import repository, start_gateway
from tests.system.containers import EngineProcess, Podman, engine, prepared_podman

__all__ = ["repository", "start_gateway"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def podman() -> Podman:
    return prepared_podman()


@pytest.fixture(scope="session")
def worker_image(podman: Podman) -> str:
    return podman.build("Dockerfile.worker", "localhost/hybrid-router-worker:test")


@pytest.fixture(scope="session")
def router_image(podman: Podman) -> str:
    return podman.build("Dockerfile.router", "localhost/hybrid-router:test")


@pytest.fixture
def docker(podman: Podman, tmp_path: Path) -> Iterator[EngineProcess]:
    """Podman's Docker API."""
    with engine(podman, tmp_path) as process:
        yield process


@pytest.fixture
def namespace(podman: Podman) -> Iterator[str]:
    """Labels of one test's containers, which are gone afterwards."""
    name = f"test-{uuid4().hex[:8]}"
    yield name
    podman.remove_all(name)
