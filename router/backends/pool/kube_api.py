"""The few calls to a Kubernetes API server that a pool needs, each with a deadline.

Every failure of the API server is a KubeError, and nothing else is. Decides nothing: `kubernetes`
does.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import load_incluster_config, load_kube_config
from kubernetes_asyncio.config.config_exception import ConfigException

_CALL_S = 10.0
_WATCH_S = 60
"""The server ends a watch after so long: a connection that died silently is noticed by then."""
_WATCH_GRACE_S = 10.0
_MAX_LINE_BYTES = 4 * 1024 * 1024
_TOO_LATE = "the API server did not answer in time"


class KubeError(Exception):
    """The API server did not do it. `status` is 0 if it could not be asked."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Scale(NamedTuple):
    """Replicas of a Deployment: those asked for, and those that exist."""

    wanted: int
    existing: int


class _Session:
    """A client with the credentials it was made with, and how many calls use it now."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        self.calls = 0


class KubeApi:
    """One connection to an API server. `kubeconfig` None: from inside a pod."""

    def __init__(self, namespace: str, kubeconfig: Path | None) -> None:
        self._namespace = namespace
        self._kubeconfig = kubeconfig
        self._session: _Session | None = None
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        """Disconnect; no call may be under way."""
        session, self._session = self._session, None
        if session is not None:
            await session.client.close()

    async def list_slices(self, service: str) -> tuple[list[dict[str, Any]], str]:
        """All EndpointSlices of a Service, and the version from which to watch."""
        async with self._call("GET", self._slices_path, _selector(service)) as response:
            document = await _document(response)
        with _of_the_server():
            return [_slice(found) for found in document["items"]], _version(document)

    async def watch_slices(
        self, service: str, version: str, on_event: Callable[[str, dict[str, Any]], None]
    ) -> None:
        """Tell every event since `version`, bookmarks too, until the server ends the watch.

        What `on_event` raises comes out as it is.
        """
        query = {
            **_selector(service),
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
        }
        timeout_s = _WATCH_S + _WATCH_GRACE_S
        async with self._call("GET", self._slices_path, query, timeout_s=timeout_s) as response:
            async for line in _lines(response):
                with _of_the_server():
                    kind, found = _event(line)
                on_event(kind, found)

    async def scale(self, deployment: str) -> Scale:
        """The size of a Deployment."""
        async with self._call("GET", self._scale_path(deployment)) as response:
            return _scale(await _document(response))

    async def set_scale(self, deployment: str, replicas: int) -> Scale:
        """Ask for so many replicas."""
        body = {"spec": {"replicas": replicas}}
        async with self._call("PATCH", self._scale_path(deployment), body=body) as response:
            return _scale(await _document(response))

    @property
    def _slices_path(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"

    def _scale_path(self, deployment: str) -> str:
        return f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{deployment}/scale"

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: object = None,
        timeout_s: float = _CALL_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer, for the caller's block to read within the time.

        Only its being over is translated of what fails in there: the rest is the block's own.
        """
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit, self._connected() as client:
                with _of_the_server():
                    response = await client.call_api(
                        path,
                        method,
                        query_params=list((query or {}).items()),
                        header_params={"Content-Type": "application/merge-patch+json"},
                        body=body,
                        auth_settings=["BearerToken"],
                        _preload_content=False,
                        _request_timeout=timeout_s,
                    )
                async with response:
                    if response.status >= 300:
                        raise await _refusal(response)
                    yield response
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise KubeError(0, _TOO_LATE) from error

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[ApiClient]:
        """The client for one call. After a 401 the next call reads the credentials again."""
        session = await self._open()
        session.calls += 1
        try:
            yield session.client
        except KubeError as error:
            if error.status == 401 and self._session is session:
                self._session = None  # the token may have been renewed on disk
            raise
        finally:
            session.calls -= 1
            if self._session is not session and not session.calls:
                await session.client.close()

    async def _open(self) -> _Session:
        async with self._connecting:
            if self._session is None:
                with _of_the_server():
                    configuration = await asyncio.to_thread(_configuration, self._kubeconfig)
                    self._session = _Session(ApiClient(configuration))
            return self._session


def _configuration(kubeconfig: Path | None) -> Configuration:
    """Reads credentials; runs in a thread because it reads files and may run a program."""
    configuration = Configuration()
    if kubeconfig is None:
        load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    else:
        asyncio.run(load_kube_config(str(kubeconfig), client_configuration=configuration))
    return configuration


@contextmanager
def _of_the_server() -> Iterator[None]:
    """Translate what goes wrong with the API server, its answers, or the access to it.

    Nothing but that belongs into the block.
    """
    try:
        yield
    except TimeoutError as error:
        raise KubeError(0, _TOO_LATE) from error
    except (aiohttp.ClientError, OSError) as error:
        raise KubeError(0, f"the API server cannot be reached: {error}") from error
    except ConfigException as error:
        raise KubeError(0, f"no access to an API server: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KubeError(0, f"the API server's answer makes no sense: {error!r}") from error


def _selector(service: str) -> dict[str, str]:
    return {"labelSelector": f"kubernetes.io/service-name={service}"}


def _scale(document: Mapping[str, Any]) -> Scale:
    with _of_the_server():
        # Zero is left out by the API's serialisation.
        spec, status = document.get("spec") or {}, document.get("status") or {}
        return Scale(int(spec.get("replicas", 0)), int(status.get("replicas", 0)))


def _event(line: bytes) -> tuple[str, dict[str, Any]]:
    """The kind of an event and its object, which has a version, and a name unless a bookmark."""
    event = json.loads(line)
    kind, found = event["type"], event["object"]
    if kind == "ERROR":
        raise KubeError(int(found.get("code", 0)), str(found.get("message")))
    _version(found)
    return kind, found if kind == "BOOKMARK" else _slice(found)


def _version(document: Mapping[str, Any]) -> str:
    version: str = document["metadata"]["resourceVersion"]
    return version


def _slice(found: dict[str, Any]) -> dict[str, Any]:
    """An EndpointSlice that has a name to be kept by. Raises TypeError."""
    if not isinstance(found["metadata"]["name"], str):
        raise TypeError("a slice has no name")
    return found


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length up to a bound; aiohttp's own are too short for a large slice."""
    rest = b""
    while True:
        with _of_the_server():
            chunk = await response.content.readany()
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _MAX_LINE_BYTES:
            raise KubeError(0, "an event of the API server is too large")


async def _document(response: aiohttp.ClientResponse) -> dict[str, Any]:
    with _of_the_server():
        document: dict[str, Any] = json.loads(await response.read())
    return document


async def _refusal(response: aiohttp.ClientResponse) -> KubeError:
    with _of_the_server():
        text = (await response.text(errors="replace"))[:500]
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text
    after = response.headers.get("retry-after", "")
    return KubeError(response.status, message, float(after) if after.isdigit() else 0.0)
