"""Launches replicas as containers through the Docker Engine API (podman speaks it too).

Labels tell which containers are ours: an earlier gateway's are adopted, its leftovers removed, and
a claim keeps the processes of one gateway from adopting each other's.
How replicas are kept is decided in `supervisor`; what is not labelled is never touched.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from router.backends.pool.claims import Claims
from router.backends.pool.supervisor import ReplicaFailedError
from router.upstream.address import Address, parse_address

_log = logging.getLogger(__name__)

NAMESPACE_LABEL = "hybrid-router.namespace"
MODEL_LABEL = "hybrid-router.model"
SPEC_LABEL = "hybrid-router.spec"

_CALL_S = 30.0
"""Deadline of one call to the engine."""
_PULL_S = 1800.0
_ASK_AGAIN_S = 1.0
_SHORT_ID = 12
_LAST_LINES = 5
_LAST_CHARS = 500


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a replica's container is. `command` and `env` have the placeholder {model}.

    `model` is the name by which the container knows its model.
    `memory_bytes` and `cpus` are limits, 0 for none. Without a `network`, the container's port is
    published on the loopback interface; with one, the container is reached by its address there.
    `gpus` of the engine's choice, and `shm_bytes` of /dev/shm (0: what the engine gives), are its.
    `restricted` takes away the writable root file system, capabilities and privilege gain.
    """

    image: str
    model: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    port: int
    memory_bytes: int
    cpus: float
    network: str
    volumes: tuple[str, ...]
    restricted: bool
    gpus: int = 0
    shm_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EngineParams:
    """Which engine, how our containers are told from others', and who may pull their images.

    `namespace` must be this gateway's alone on that engine. Containers of models that are not in
    `models` are leftovers.
    """

    url: str
    namespace: str
    models: frozenset[str]
    outlives_gateway: bool
    registry_file: Path | None = None


class ContainerInstance:
    """A running container."""

    def __init__(self, engine: Docker, id: str, model: str, address: Address, spec: str) -> None:
        self.id = f"{model}-{id[:_SHORT_ID]}"
        self.address = address
        self.spec = spec
        self.on_end: Callable[[], None] = lambda: None
        self._engine = engine
        self._container = id

    async def ended(self) -> str:
        """Wait for the container to exit; an engine that is away says nothing about it."""
        while True:
            try:
                answer = await self._engine.containers.container(self._container).wait()
            except DockerError as error:
                if error.status == 404:
                    return "was removed"
            except (aiohttp.ClientError, OSError, ValueError):
                pass  # the engine is restarting: its containers may well run on
            else:
                return f"exited with status {answer.get('StatusCode')}{await self._last_words()}"
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _last_words(self) -> str:
        """What it wrote before it ended, for who looks for the cause; nothing if it is gone."""
        container = self._engine.containers.container(self._container)
        try:
            async with _engine_call("show a container's log", _CALL_S):
                lines = await container.log(stdout=True, stderr=True, tail=_LAST_LINES)
        except ReplicaFailedError:
            return ""
        text = last_words(lines)
        return f"; it wrote last: {text}" if text else ""

    async def end(self, patience_s: float) -> None:
        """Stop, and remove. Raises ReplicaFailedError while the engine does not do it."""
        container = self._engine.containers.container(self._container)
        async with _engine_call("stop a container", patience_s + _CALL_S):
            if patience_s > 0:
                await _unless_gone(container.stop(t=max(1, round(patience_s))))
            await _unless_gone(container.delete(force=True, v=True))
        await asyncio.to_thread(self.on_end)

    def abandon(self) -> None:
        """Nothing: the next gateway finds the container by its labels."""


class ContainerLauncher:
    """Makes the containers of one model."""

    def __init__(
        self, model: str, spec: ContainerSpec, engine: EngineParams, claims: Claims
    ) -> None:
        self._model = model
        self.configured = spec
        self.engine = engine
        self._claims = claims
        self._docker: Docker | None = None
        self._preparing = asyncio.Lock()

    @property
    def spec(self) -> str:
        """A digest of what the container is."""
        text = json.dumps(asdict(self.configured), sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]

    @property
    def outlives_gateway(self) -> bool:
        """Whether containers stay for the next gateway to adopt."""
        return self.engine.outlives_gateway

    async def open(self) -> Sequence[ContainerInstance]:
        """Connect, adopt what runs, remove what does not or belongs to no model any more."""
        if self._docker is None:
            # Without a pinned version the client asks the engine for its own.
            timeout = aiohttp.ClientTimeout(total=_CALL_S)
            self._docker = Docker(self.engine.url, timeout=timeout)
        await asyncio.to_thread(self._claims.release_all)  # of an attempt that failed half-way
        adopted = []
        async with _engine_call("list containers", 4 * _CALL_S):
            filters = json.dumps({"label": [f"{NAMESPACE_LABEL}={self.engine.namespace}"]})
            for found in await self._client.containers.list(all=1, filters=filters):
                instance = await self._take(found["Id"], _name_of(found["Names"]), found["Labels"])
                if instance is not None:
                    adopted.append(instance)
        return adopted

    async def _take(
        self, id: str, name: str, labels: Mapping[str, str]
    ) -> ContainerInstance | None:
        """Adopt a container that nobody looks after, or remove it."""
        model = labels.get(MODEL_LABEL)
        if model != self._model and model in self.engine.models:
            return None  # its own pool's
        if not await asyncio.to_thread(self._claims.claim, name):
            return None  # another process of this gateway has it
        if model == self._model:
            instance = await self._adopt(id, labels.get(SPEC_LABEL, ""))
            if instance is not None:
                instance.on_end = partial(self._claims.release, name)
                return instance
        _log.info("removing container %s, left by an earlier gateway", name)
        await self._remove(name)
        return None

    async def prepare(self) -> None:
        """Pull the image if the engine does not have it."""
        # One pull for all replicas that wait for it.
        async with self._preparing, _engine_call("pull the image", _PULL_S):
            image = self.configured.image
            try:
                await self._client.images.inspect(image)
            except DockerError as error:
                if error.status != 404:
                    raise
                _log.info("model %s: pulling image %s", self._model, image)
                login = await asyncio.to_thread(login_for, image, self.engine.registry_file)
                await self._client.images.pull(image, auth=login, timeout=None)  # bounded above

    async def launch(self, number: str) -> ContainerInstance:
        """Create and start a container."""
        spec = self.spec
        part = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{self.engine.namespace}-{self._model}")
        name = f"{part}-{number}-{token_hex(3)}"
        # Before it exists, or another process could take it for a leftover.
        await asyncio.to_thread(self._claims.claim, name)
        try:
            async with _engine_call("start a container", 3 * _CALL_S):
                config = creation(self.configured, self._labels(spec))
                container = await self._client.containers.create(config, name=name)
                await container.start()
                instance = self._instance(container.id, await container.show(), spec)
                instance.on_end = partial(self._claims.release, name)
                return instance
        except BaseException:
            # Also when cancelled half-way: only its name is known then.
            await self._remove(name)
            raise

    async def close(self) -> None:
        """Close the connection to the engine, and leave what runs on to the next gateway."""
        await asyncio.to_thread(self._claims.release_all)
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    @property
    def _client(self) -> Docker:
        assert self._docker is not None, "used before `open`"  # noqa: S101
        return self._docker

    def _labels(self, spec: str) -> dict[str, str]:
        return {
            NAMESPACE_LABEL: self.engine.namespace,
            MODEL_LABEL: self._model,
            SPEC_LABEL: spec,
        }

    async def _adopt(self, id: str, spec: str) -> ContainerInstance | None:
        """The container as a replica; None if it is not running or cannot be reached."""
        try:
            state = await self._client.containers.container(id).show()
            if not state["State"]["Running"]:
                return None
            return self._instance(id, state, spec)
        except (DockerError, ReplicaFailedError) as error:
            _log.warning("container %s is not adopted: %s", id, error)
            return None

    def _instance(self, id: str, state: Mapping[str, Any], spec: str) -> ContainerInstance:
        address = address_of(state, self.configured)
        return ContainerInstance(self._client, id, self._model, address, spec)

    async def _remove(self, name: str) -> None:
        """Remove a container that nobody uses; one that stays is found by the next `open`."""
        try:
            async with _engine_call("remove a container", _CALL_S):
                await _unless_gone(
                    self._client.containers.container(name).delete(force=True, v=True)
                )
        except ReplicaFailedError as error:
            _log.warning("container %s was not removed: %s", name, error)
        await asyncio.to_thread(self._claims.release, name)


def _name_of(names: Sequence[str]) -> str:
    return names[0].lstrip("/")


def login_for(image: str, file: Path | None) -> dict[str, str] | None:
    """What `docker login` wrote of the image's registry; None without a login.

    Raises ReplicaFailedError, without the file's text, if there is no such file in Docker's form.
    """
    registry, slash, _ = image.partition("/")
    if file is None or not slash:
        return None
    try:
        logins = json.loads(file.read_text())["auths"]
        found = logins.get(registry) or logins.get(f"https://{registry}")
        if not found:
            return None
        if token := found.get("identitytoken"):
            return {"identitytoken": token}
        return {"auth": found["auth"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it has no logins in Docker's form"
        raise ReplicaFailedError(f"{file} could not be used for a pull: {told}") from error


def last_words(lines: Sequence[str]) -> str:
    """The end of a container's output on one line, without what could forge another."""
    text = " | ".join(line.strip() for line in lines if line.strip())
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= _LAST_CHARS else f"...{shown[-_LAST_CHARS:]}"


def creation(spec: ContainerSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    """The body of the engine's create call."""
    port = f"{spec.port}/tcp"
    host: dict[str, Any] = {
        "Memory": spec.memory_bytes,
        # Without swap: a replica at its limit is ended instead of being slow.
        "MemorySwap": spec.memory_bytes,
        "NanoCpus": round(spec.cpus * 1e9),
        "Binds": list(spec.volumes),
        "RestartPolicy": {"Name": "no"},
    }
    if spec.gpus:
        host["DeviceRequests"] = [{"Count": spec.gpus, "Capabilities": [["gpu"]]}]
    if spec.shm_bytes:
        host["ShmSize"] = spec.shm_bytes
    if spec.network:
        host["NetworkMode"] = spec.network
    else:
        host["PortBindings"] = {port: [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    if spec.restricted:
        host |= {
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": "rw,noexec,nosuid,size=64m"},  # noqa: S108 - in the container
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
        }
    config: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value.replace('{model}', spec.model)}" for name, value in spec.env],
        "Labels": dict(labels),
        "ExposedPorts": {port: {}},
        "HostConfig": host,
    }
    if spec.command:
        config["Cmd"] = [argument.replace("{model}", spec.model) for argument in spec.command]
    return config


def address_of(state: Mapping[str, Any], spec: ContainerSpec) -> Address:
    """Where the gateway reaches a container. Raises ReplicaFailedError if nowhere."""
    network = state["NetworkSettings"]
    if spec.network:
        host = (network.get("Networks") or {}).get(spec.network, {}).get("IPAddress")
        port = str(spec.port)
    else:
        bindings = (network.get("Ports") or {}).get(f"{spec.port}/tcp") or [{}]
        host, port = "127.0.0.1", bindings[0].get("HostPort")
    if not host or not port:
        where = f"in network {spec.network}" if spec.network else "on a published port"
        raise ReplicaFailedError(f"the container cannot be reached {where}")
    return parse_address(f"http://{host}:{port}")


@asynccontextmanager
async def _engine_call(what: str, timeout_s: float) -> AsyncIterator[None]:
    """Bounds calls to the engine; its errors become ReplicaFailedError."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except DockerError as error:
        raise ReplicaFailedError(f"the engine did not {what}: {error.message}") from error
    except TimeoutError as error:
        raise ReplicaFailedError(f"the engine did not {what} in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ReplicaFailedError(f"the engine could not be asked to {what}: {error}") from error


async def _unless_gone(call: Any) -> None:  # noqa: ANN401 - an awaitable of the client
    """Await a call about a container; one that is gone, or stopped, is as it should be."""
    try:
        await call
    except DockerError as error:
        if error.status not in {304, 404, 409}:
            raise
