"""Facts for tests: a request, both snapshots and a clock that only moves when told to.

Every builder gives something ordinary; a test states only what it is about.
"""

from typing import Any

from router.domain.request import InferenceRequest
from router.domain.snapshot import PoolSnapshot, ServerlessLimits, ServerlessSnapshot
from router.gateway.protocols.oip import OIP
from router.policy.steering import Slo

NOW = 1000.0
LIMITS = ServerlessLimits(max_payload_bytes=6_291_556, timeout_s=30.0, can_stream=False)
SLO = Slo(latency_s=0.25, percentile=99, cold_allowed=True)


class FakeClock:
    """Monotonic seconds that stand still; `sleep` moves them on."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def make_request(**facts: Any) -> InferenceRequest:
    """A small JSON inference request for model `m`, received now."""
    defaults: dict[str, Any] = {
        "request_id": "r-1",
        "protocol": OIP,
        "model": "m",
        "method": "POST",
        "action": "infer",
        "path": "/v2/models/m/infer",
        "payload_bytes": 300,
        "received_at": NOW,
    }
    return InferenceRequest(**{**defaults, **facts})


def make_serverless(**facts: Any) -> ServerlessSnapshot:
    """A warm, idle function: 50 ms a call, cold starts take one second."""
    snapshot = ServerlessSnapshot(
        enabled=True,
        breaker_open=False,
        in_flight=0,
        max_concurrency=20,
        queued=0,
        queued_bytes=0,
        max_queued=100,
        max_queued_bytes=64 << 20,
        limits=LIMITS,
        expected_s=0.05,
        upper_s=0.1,
        p_cold=0.0,
        init_s=1.0,
        price_usd=3e-6,
    )
    return snapshot._replace(**facts)


def make_pool(**facts: Any) -> PoolSnapshot:
    """One ready, idle replica with four slots: 20 ms a request."""
    snapshot = PoolSnapshot(
        enabled=True,
        can_start=True,
        ready=1,
        wanted=1,
        slots=4,
        free_slots=4,
        queued=0,
        queued_bytes=0,
        max_queued=100,
        max_queued_bytes=64 << 20,
        expected_s=0.02,
        upper_s=0.04,
        ready_in_s=0.0,
        signals_stale=False,
    )
    return snapshot._replace(**facts)
