"""What the engine is asked for, and where a container is found, by tables."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.backends.pool.claims import Claims
from router.backends.pool.docker import (
    ContainerLauncher,
    ContainerSpec,
    EngineParams,
    address_of,
    creation,
    last_words,
    login_for,
)
from router.backends.pool.supervisor import ReplicaFailedError

SPEC = ContainerSpec(
    image="worker:1",
    model="m",
    command=("--model", "{model}"),
    env=(("MODEL", "{model}"),),
    port=8000,
    memory_bytes=1 << 30,
    cpus=1.5,
    network="",
    volumes=("/srv:/models:ro",),
    restricted=True,
)
ENGINE = EngineParams("unix:///nowhere", "ns", frozenset({"m"}), outlives_gateway=False)


def launcher(spec: ContainerSpec) -> ContainerLauncher:
    return ContainerLauncher("m", spec, ENGINE, Claims(Path("/nowhere")))


def test_the_model_is_put_where_its_placeholder_is():
    config = creation(replace(SPEC, model="org/m"), {"a": "b"})
    assert config["Cmd"] == ["--model", "org/m"]
    assert config["Env"] == ["MODEL=org/m"]
    assert config["Labels"] == {"a": "b"}


def test_an_image_keeps_its_own_command_if_none_is_given():
    assert "Cmd" not in creation(replace(SPEC, command=()), {})


def test_limits_are_in_the_engines_units():
    host = creation(SPEC, {})["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (
        1 << 30,
        1 << 30,
        1_500_000_000,
    )


def test_a_port_is_published_to_this_machine_only():
    host = creation(SPEC, {})["HostConfig"]
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert "NetworkMode" not in host


def test_in_a_network_nothing_is_published():
    host = creation(replace(SPEC, network="pool"), {})["HostConfig"]
    assert host["NetworkMode"] == "pool"
    assert "PortBindings" not in host


@pytest.mark.parametrize("restricted", [True, False])
def test_restrictions_can_be_lifted(restricted: bool):
    host = creation(replace(SPEC, restricted=restricted), {})["HostConfig"]
    assert (host.get("ReadonlyRootfs"), host.get("CapDrop")) == (
        (True, ["ALL"]) if restricted else (None, None)
    )


PUBLISHED = {"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "40001"}]}}
IN_NETWORK = {"Networks": {"pool": {"IPAddress": "10.89.0.7"}}}


@pytest.mark.parametrize(
    ("network", "found", "url"),
    [("", PUBLISHED, "http://127.0.0.1:40001"), ("pool", IN_NETWORK, "http://10.89.0.7:8000")],
    ids=["by the published port", "by the address in the network"],
)
def test_a_container_is_reached(network: str, found: dict[str, Any], url: str):
    address = address_of({"NetworkSettings": found}, replace(SPEC, network=network))
    assert address.url == url


@pytest.mark.parametrize(
    ("network", "found"),
    [
        ("", {}),
        ("", {"Ports": {"8000/tcp": None}}),
        ("pool", {}),
        ("pool", {"Networks": {"pool": {}}}),
    ],
)
def test_a_container_that_cannot_be_reached_is_an_error(network: str, found: dict[str, Any]):
    with pytest.raises(ReplicaFailedError, match="cannot be reached"):
        address_of({"NetworkSettings": found}, replace(SPEC, network=network))


@pytest.mark.parametrize(
    "change",
    [{"image": "worker:2"}, {"env": ()}, {"cpus": 2.0}, {"restricted": False}, {"network": "pool"}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_makes_a_container_another_one_changes_its_digest(change: dict[str, Any]):
    assert launcher(SPEC).spec != launcher(replace(SPEC, **change)).spec
    assert launcher(SPEC).spec == launcher(SPEC).spec


async def test_an_engine_that_is_not_there_is_a_failed_replica():
    subject = launcher(SPEC)
    with pytest.raises(ReplicaFailedError, match="did not list containers: Cannot connect"):
        await subject.open()
    await subject.close()


def test_the_last_words_of_a_container_are_one_bounded_line():
    assert last_words(["no such model\n", "\n", "bye\r\x1b[31m\n"]) == "no such model | bye  [31m"
    long = last_words(["x" * 10_000, "the cause\n"])
    assert long.endswith("the cause")
    assert len(long) < 600


def test_gpus_and_shared_memory_are_asked_for_only_where_they_are_wanted():
    host = creation(replace(SPEC, gpus=2, shm_bytes=1 << 30), {})["HostConfig"]
    assert host["DeviceRequests"] == [{"Count": 2, "Capabilities": [["gpu"]]}]
    assert host["ShmSize"] == 1 << 30
    assert not {"DeviceRequests", "ShmSize"} & set(creation(SPEC, {})["HostConfig"])


def test_an_image_is_pulled_with_the_login_of_its_registry(tmp_path: Path):
    file = tmp_path / "config.json"
    file.write_text(
        '{"auths": {"ghcr.io": {"auth": "dTpw"}, "r.example:5000": {"identitytoken": "t"}}}'
    )
    assert login_for("ghcr.io/acme/worker:1", file) == {"auth": "dTpw"}
    assert login_for("r.example:5000/worker:1", file) == {"identitytoken": "t"}
    assert login_for("quay.io/acme/worker:1", file) is None
    assert login_for("worker:1", file) is None
    assert login_for("ghcr.io/acme/worker:1", None) is None


@pytest.mark.parametrize("text", [None, "secret", "[]", '{"auths": {"ghcr.io": "secret"}}'])
def test_a_file_without_logins_is_told_without_its_text(tmp_path: Path, text: str | None):
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ReplicaFailedError) as caught:
        login_for("ghcr.io/acme/worker:1", file)
    assert "config.json" in str(caught.value)
    assert "secret" not in str(caught.value)
