"""EndpointSlices to addresses: which replicas of a Service take requests now.

Pure bookkeeping of what the API server said last. Never asks it, never forgets by itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from router.upstream.address import Address, parse_address

Slice = Mapping[str, Any]


class SliceBook:
    """The slices of one Service. `port` is a port's name or number; empty: a slice's first."""

    def __init__(self, model: str, port: str) -> None:
        self._model = model
        self._port = port
        self._slices: dict[str, Slice] = {}

    def replace(self, slices: Iterable[Slice]) -> None:
        """Take `slices` for all that the Service has, as a list of them says."""
        self._slices = {_name(found): found for found in slices}

    def apply(self, event: str, found: Slice) -> None:
        """Take up a watch event: one slice was ADDED, MODIFIED or DELETED."""
        if event == "DELETED":
            self._slices.pop(_name(found), None)
        else:
            self._slices[_name(found)] = found

    def targets(self) -> dict[str, Address]:
        """Ready replicas by opaque id: the same for all gateways, and the pod's for life."""
        targets: dict[str, Address] = {}
        for found in self._slices.values():
            port = self._port_of(found)
            if port is None or found.get("addressType") not in {"IPv4", "IPv6"}:
                continue
            for uid, host, _ in _ready(found):
                # A pod with two families of addresses is in two slices, and still one replica.
                text = f"[{host}]" if ":" in host else host
                targets.setdefault(self._id(uid), parse_address(f"http://{text}:{port}"))
        return targets

    def near(self, zone: str) -> frozenset[str]:
        """Ids of the replicas that the API server suggests to clients in that zone.

        Everybody, where it has not a suggestion for every replica (the API's own rule), or none
        for the zone.
        """
        suggested = {
            self._id(uid): _suggests(endpoint, zone)
            for found in self._slices.values()
            for uid, _, endpoint in _ready(found)
        }
        near = frozenset(id_ for id_, is_near in suggested.items() if is_near)
        return near if near and None not in suggested.values() else frozenset(suggested)

    def _id(self, uid: str) -> str:
        return f"{self._model}-{sha256(uid.encode()).hexdigest()[:10]}"

    def _port_of(self, found: Slice) -> int | None:
        for port in found.get("ports") or ():
            if self._port in {"", port.get("name"), str(port.get("port"))}:
                number: int | None = port.get("port")
                return number
        return None


def _suggests(endpoint: Mapping[str, Any], zone: str) -> bool | None:
    """Whether the endpoint is suggested to the zone; None if nothing is suggested for it."""
    zones = (endpoint.get("hints") or {}).get("forZones")
    return any(hint.get("name") == zone for hint in zones) if zones else None


def _name(found: Slice) -> str:
    name: str = found["metadata"]["name"]
    return name


def _ready(found: Slice) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each replica that takes requests: its pod (or address, if none is named), address, entry."""
    for endpoint in found.get("endpoints") or ():
        conditions = endpoint.get("conditions") or {}
        addresses = endpoint.get("addresses")
        # An unknown readiness means ready (the API's own rule).
        if not addresses or conditions.get("ready") is False or conditions.get("terminating"):
            continue
        yield (endpoint.get("targetRef") or {}).get("uid") or addresses[0], addresses[0], endpoint
