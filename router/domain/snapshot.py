"""What a policy may see of a backend at one instant.

Tuples rather than frozen dataclasses: two are built for every request, and a tuple costs a third.
"""

from typing import NamedTuple


class ServerlessLimits(NamedTuple):
    """Hard limits of a serverless platform: bytes after encoding, seconds, streaming.

    `takes_events` says that bodies travel inside a JSON event, binary ones as base64.
    """

    max_payload_bytes: int
    timeout_s: float
    can_stream: bool
    takes_events: bool = True


class ServerlessSnapshot(NamedTuple):
    """One model's function, as seen for one payload size.

    `expected_s` and `upper_s` are the mean and a high estimate of a warm call as the gateway sees
    it; `init_s` what a cold start adds; `price_usd` what a warm call is expected to cost.
    `is_learned` says that enough calls were seen for `upper_s` to be more than a guess,
    `is_untried` that none was.
    `open_for_s` is how long an open breaker is yet to refuse calls, `max_wait_s` how long a request
    may be held. `may_try` says that this request may find out whether the estimates are true.
    """

    enabled: bool
    breaker_open: bool
    in_flight: int
    max_concurrency: int
    queued: int
    queued_bytes: int
    max_queued: int
    max_queued_bytes: int
    limits: ServerlessLimits
    expected_s: float
    upper_s: float
    p_cold: float
    init_s: float
    price_usd: float
    open_for_s: float = 0.0
    max_wait_s: float = 0.0
    is_learned: bool = True
    is_untried: bool = False
    may_try: bool = False


class PoolSnapshot(NamedTuple):
    """One model's warm pool, as seen for one payload size.

    `ready` endpoints take traffic now; `wanted` is what the sizing asks for; `can_start` says that
    a replica is starting or could be started. `ready_in_s` predicts when the first starting replica
    takes traffic.
    `signals_stale` says that `wanted` may be out of date because shared state is unreachable.
    `may_try` says that this request may find out whether the estimates are true.
    `missing` says why no replica can be started, in words for clients, where that is known.
    """

    enabled: bool
    can_start: bool
    ready: int
    wanted: int
    slots: int
    free_slots: int
    queued: int
    queued_bytes: int
    max_queued: int
    max_queued_bytes: int
    expected_s: float
    upper_s: float
    ready_in_s: float
    signals_stale: bool
    may_try: bool = False
    missing: str = ""
