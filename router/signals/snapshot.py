"""What one gateway knows of the others: values only, replaced as a whole, never changed in place.

Decides when that knowledge is too old. Never talks to anything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class ModelTotals(NamedTuple):
    """What one gateway has received for one model since it started; only ever grows.

    `work_s` is the service time a pool is expected to need for it, `serverless_usd` what it would
    cost on serverless. `captive` requests are those only the pool can carry; they are part of
    `arrivals`, and `captive_work_s` of `work_s`.
    """

    arrivals: int = 0
    work_s: float = 0.0
    serverless_usd: float = 0.0
    captive: int = 0
    captive_work_s: float = 0.0


class SharedEndpoint(NamedTuple):
    """A ready replica that the gateway `gateway_id` runs and any other may send requests to."""

    id: str
    url: str
    concurrency: int
    gateway_id: str


class CanaryWord(NamedTuple):
    """What one gateway says about a canary, for those that have the same one configured.

    `canary` is a digest of its settings. The word with the higher `term` holds, and of two with the
    same term the one that is out: whoever resumes a canary begins a new term. `step` counts the
    promotions in that term.
    """

    canary: str
    term: int
    is_out: bool
    step: int = 0


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The other gateways, as last read from the shared state; this gateway is not in it.

    `peers` maps gateway to model to totals. A peer's totals start again from zero when it restarts,
    and a peer may appear with totals that are already large: readers take differences, and count
    nothing for the first sight of a peer. `endpoints` maps a model to the others' ready replicas,
    `peer_in_flight` an endpoint (theirs or ours) to the requests the others have on it.
    `taken` maps gateway to API key to the requests that it has let through since it started.
    `canaries` maps a rule to what the others say about its canary.
    `is_leader` says that this gateway may decide for all. `taken_at` is monotonic seconds.
    """

    peers: Mapping[str, Mapping[str, ModelTotals]]
    endpoints: Mapping[str, tuple[SharedEndpoint, ...]]
    peer_in_flight: Mapping[str, int]
    is_leader: bool
    taken_at: float
    taken: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    canaries: Mapping[str, tuple[CanaryWord, ...]] = field(default_factory=dict)

    def stale(self, now: float, staleness_s: float) -> bool:
        """Whether the snapshot is older than `staleness_s`, so that it must not be relied on."""
        return now - self.taken_at > staleness_s


ALONE = FleetSnapshot(peers={}, endpoints={}, peer_in_flight={}, is_leader=True, taken_at=math.inf)
"""No shared state is configured: nobody else is there, and that never becomes stale."""
