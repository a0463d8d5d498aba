"""One model repository for all end-to-end tests, and gateways that never outlive a test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import write_models

StartGateway = Callable[..., GatewayProcess]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    started: list[GatewayProcess] = []

    def start(config: dict[str, Any], **environment: str) -> GatewayProcess:
        gateway = GatewayProcess(tmp_path / f"gateway-{len(started)}", config, environment)
        started.append(gateway)
        return gateway.start()

    yield start
    for gateway in started:
        gateway.ensure_gone()
