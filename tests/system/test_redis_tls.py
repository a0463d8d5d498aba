"""A Redis behind TLS with an authority of its own and a user with a password, also as a cluster."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.fakes.certificates import make_certificate
from tests.fakes.valkey import free_port
from tests.fakes.valkey_fleets import HASH_SLOTS, until
from tests.integration.signals.gateways import eventually, running

USER, PASSWORD, QUOTED = "gateway", "p%3A_s", "p%253A_s"


@pytest.fixture(params=["rediss", "rediss+cluster"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a real server, and the file that says whom to trust."""
    cert, key = make_certificate(tmp_path, "redis")
    port = free_port()
    acl = tmp_path / "users.acl"
    acl.write_text(f"user default off\nuser {USER} on >{PASSWORD} ~* &* +@all\n")
    is_cluster = "cluster" in request.param
    command = [
        "redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1",
        "--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert),
        "--tls-auth-clients", "no", "--aclfile", str(acl), "--dir", str(tmp_path), "--save", "",
        *(["--cluster-enabled", "yes", "--tls-cluster", "yes"] if is_cluster else []),
    ]  # fmt: skip
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as process,
        redis.Redis(
            "127.0.0.1", port, username=USER, password=PASSWORD, ssl=True, ssl_ca_certs=str(cert)
        ) as client,
    ):
        try:
            until(client.ping)
            if is_cluster:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, HASH_SLOTS - 1)
                until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
            yield f"{request.param}://{USER}:{QUOTED}@127.0.0.1:{port}", cert
        finally:
            process.kill()


async def test_gateways_meet_there(server: tuple[str, Path]) -> None:
    url, cert = server
    trusting = f"{url}?ssl_ca_certs={cert}"
    async with running(trusting, "a") as a, running(trusting, "b") as b:
        await eventually(lambda: a.peers == {"b"} and b.peers == {"a"})


@pytest.mark.parametrize("wrong", ["authority", "password"])
async def test_nobody_else_is_trusted(server: tuple[str, Path], wrong: str) -> None:
    url, cert = server
    if wrong == "password":
        url = f"{url.replace(QUOTED, 'other')}?ssl_ca_certs={cert}"
    async with running(url, "a", 0.5) as a:
        await eventually(lambda: a.state.flushes_failed > 1 and a.leads)
        assert a.state.flushes_ok == 0
