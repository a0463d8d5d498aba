"""A small Kubernetes API server: EndpointSlices, their versions and watches, Deployments' scale.

Behaves as the API's concepts page says (resource versions, compaction, bookmarks, expired tokens),
and misbehaves on demand.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Slice = dict[str, Any]


def endpoint(address: str, uid: str, **conditions: bool) -> dict[str, Any]:
    return {
        "addresses": [address],
        "conditions": {"ready": True, **conditions},
        "targetRef": {"kind": "Pod", "uid": uid},
    }


def slice_of(name: str, *endpoints: dict[str, Any], port: int = 8000, **more: Any) -> Slice:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": list(endpoints),
        **more,
    }


@dataclass
class Fault:
    """What the next request to a path that contains `part` gets instead of an answer."""

    part: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


class KubernetesApi:
    """The server, its state, and a log of what it was asked."""

    def __init__(self) -> None:
        self.token = "first"
        self.slices: dict[str, Slice] = {}
        self.scales: dict[str, int] = {}
        self.requests: list[tuple[str, str, dict[str, str], float]] = []
        self.faults: deque[Fault] = deque()
        self.expires_in_stream = False
        self._version = 100
        self._compacted = 0
        self._events: list[tuple[int, str, Slice]] = []
        self._news = asyncio.Condition()
        self._streams: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0

    # -- the server ------------------------------------------------------------------------------

    async def start(self) -> None:
        app = web.Application(middlewares=[self._gate])
        slices = "/apis/discovery.k8s.io/v1/namespaces/ml/endpointslices"
        scale = "/apis/apps/v1/namespaces/ml/deployments/{name}/scale"
        app.router.add_get(slices, self._list_or_watch)
        app.router.add_get(scale, self._read_scale)
        app.router.add_patch(scale, self._patch_scale)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self.break_watches()
            await self._runner.cleanup()
            self._runner = None

    async def break_watches(self) -> None:
        """Cut the connections of all watches."""
        streams = list(self._streams)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    def write_kubeconfig(self, path: Path, token: str | None = None) -> Path:
        server = {"server": f"http://127.0.0.1:{self._port}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"token": token or self.token}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def count(self, method: str, part: str, **query: str) -> int:
        """Requests so far with this method, path and query."""
        return sum(
            found == method and part in path and query.items() <= given.items()
            for found, path, given, _ in self.requests
        )

    @property
    def lists(self) -> int:
        return self.count("GET", "endpointslices") - self.watches

    @property
    def watches(self) -> int:
        return self.count("GET", "endpointslices", watch="true")

    # -- what happens in the cluster -------------------------------------------------------------

    async def put(self, found: Slice) -> None:
        name = found["metadata"]["name"]
        await self._happen("MODIFIED" if name in self.slices else "ADDED", found)

    async def delete(self, name: str) -> None:
        await self._happen("DELETED", self.slices[name])

    async def bookmark(self) -> None:
        self._version += 1
        await self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})

    async def compact(self) -> None:
        """Forget the past: watches cannot start from before now."""
        self._compacted = self._version

    async def _happen(self, event: str, found: Slice) -> None:
        self._version += 1
        version = {"resourceVersion": str(self._version)}
        found = {**found, "metadata": {**found["metadata"], **version}}
        if event == "DELETED":
            del self.slices[found["metadata"]["name"]]
        else:
            self.slices[found["metadata"]["name"]] = found
        await self._tell(event, found)

    async def _tell(self, event: str, found: Slice) -> None:
        async with self._news:
            self._events.append((self._version, event, found))
            self._news.notify_all()

    # -- requests --------------------------------------------------------------------------------

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        self.requests.append((request.method, request.path, dict(request.query), now))
        for fault in list(self.faults):
            if fault.part in request.path:
                self.faults.remove(fault)
                return _status(fault.status, "as the test wants", fault.headers)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        response: web.StreamResponse = await handler(request)
        return response

    async def _list_or_watch(self, request: web.Request) -> web.StreamResponse:
        assert request.query["labelSelector"] == "kubernetes.io/service-name=svc"
        if request.query.get("watch") == "true":
            return await self._watch(request)
        version = {"resourceVersion": str(self._version)}
        return web.json_response({"metadata": version, "items": list(self.slices.values())})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self._compacted and not self.expires_in_stream:
            return _status(410, "too old resource version")
        response = web.StreamResponse()
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            if since < self._compacted:
                await _send(response, "ERROR", {"code": 410, "message": "too old resource version"})
                return response
            await self._stream(response, since)
        finally:
            self._streams.discard(task)
        return response

    async def _stream(self, response: web.StreamResponse, since: int) -> None:
        while True:
            async with self._news:
                while self._version <= since:
                    await self._news.wait()
                news = [found for found in self._events if found[0] > since]
                since = self._version
            for _, event, found in news:
                await _send(response, event, found)

    async def _read_scale(self, request: web.Request) -> web.Response:
        return self._scale_of(request.match_info["name"])

    async def _patch_scale(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        self.scales[request.match_info["name"]] = (await request.json())["spec"]["replicas"]
        return self._scale_of(request.match_info["name"])

    def _scale_of(self, name: str) -> web.Response:
        if name not in self.scales:
            return _status(404, f'deployments.apps "{name}" not found')
        replicas = self.scales[name]
        # As the real one: zero is left out.
        spec = {"replicas": replicas} if replicas else {}
        return web.json_response({"kind": "Scale", "spec": spec, "status": {"replicas": replicas}})


async def _send(response: web.StreamResponse, event: str, found: Any) -> None:
    await response.write(json.dumps({"type": event, "object": found}).encode() + b"\n")


def _status(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "message": message, "code": status}
    return web.json_response(body, status=status, headers=headers)
