"""What is remembered of a function's cold starts: environments seen, and how long they took.

Also judges by its time whether a call started cold, where no answer tells. Every memory is
bounded. Pure.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence

from router.policy.estimates import ServiceTimes, payload_bucket

_MAX_ENVIRONMENTS = 20_000
_KEPT_TIMES = 1000
_MAX_ID_CHARS = 200
_LEAST_STEP_S = 0.05
"""Less is noise of the network."""
_MAX_SURPRISES = 3


class FirstSeen:
    """Environments by the id that their answers carry.

    An environment that was warm before the gateway started counts as new once.
    """

    def __init__(self, max_environments: int = _MAX_ENVIRONMENTS) -> None:
        self._max = max_environments
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, environment_id: str) -> bool:
        """Whether this is the first answer of that environment; remembers it."""
        key = environment_id[:_MAX_ID_CHARS]
        is_new = key not in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > self._max:
            self._seen.popitem(last=False)
        return is_new


class FirstByteStep:
    """Tells cold calls by the step in their time to the first byte.

    A call is taken for cold if it took longer than others of its size by more than half of what a
    cold start is expected to take. Where that happens time and again though a warm environment was
    believed to be there, the model got slower.
    """

    def __init__(self, service_time_s: float) -> None:
        self._usual = ServiceTimes(service_time_s)
        self._surprises: dict[int, int] = {}  # in a row, of each size that was seen

    def is_cold(
        self, payload_bytes: int, first_byte_s: float, cold_start_s: float, *, expected_warm: bool
    ) -> bool:
        """Judge one call, and learn from it if it was warm."""
        usual = self._usual.estimate(payload_bytes)
        step_s = max(0.5 * cold_start_s, _LEAST_STEP_S)
        is_step = first_byte_s > max(usual.upper_s, usual.mean_s + step_s)
        bucket = payload_bucket(payload_bytes)
        if is_step and expected_warm:
            # Neither what was configured nor another size is a reference against the belief.
            surprises = self._surprises.get(bucket, _MAX_SURPRISES) + 1
            self._surprises[bucket] = surprises
            is_step = surprises < _MAX_SURPRISES
        if not is_step:
            self._usual.observe(payload_bytes, first_byte_s)
            self._surprises[bucket] = 0
        return is_step


class InitTimes:
    """The last cold starts' durations in seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_KEPT_TIMES)

    def add(self, seconds: float) -> None:
        """Count one cold start."""
        self._times.append(seconds)

    def quantiles(self, shares: Sequence[float]) -> list[float | None]:
        """The smallest duration that at least each share of them does not exceed."""
        ordered = sorted(self._times)
        if not ordered:
            return [None] * len(shares)
        last = len(ordered) - 1
        return [ordered[min(last, max(0, _rank(share, len(ordered))))] for share in shares]


def _rank(share: float, count: int) -> int:
    return -int(-share * count // 1) - 1
