"""The compose file and what it mounts fit together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from router.settings.loader import load
from router.settings.pools import DockerPool

DEPLOY = Path(__file__).parents[3] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_gateways_configuration_is_valid_and_joins_the_pools_network():
    loaded = load(DEPLOY / "compose" / "router.yaml", {"MODELS": "/srv/models"})
    pools = [model.pool for model in loaded.settings.models]
    for pool in pools:
        assert isinstance(pool, DockerPool)
        assert pool.network == COMPOSE["networks"]["pool"]["name"]
        assert pool.volumes == ("/srv/models:/models:ro",)
    assert "pool" in SERVICES["gateway"]["networks"]
    assert loaded.settings.shared_state.redis_url.startswith("redis://redis:")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_privileges_and_is_published_to_this_machine_only(name: str):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert not service.get("privileged")


def test_what_is_mounted_exists():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
            elif not source.startswith(("/", "$")):
                assert source in COMPOSE["volumes"]
