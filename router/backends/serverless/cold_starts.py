"""What is remembered of a function's cold starts: which environments were seen, how long they took.

Both memories are bounded. Pure.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence

_MAX_ENVIRONMENTS = 20_000
_KEPT_TIMES = 1000
_MAX_ID_CHARS = 200


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


class InitTimes:
    """The last cold starts' durations in seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_KEPT_TIMES)

    def add(self, seconds: float) -> None:
        """One more cold start."""
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
