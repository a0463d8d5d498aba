"""How long one client has kept its connection waiting, and the end of that."""

from collections.abc import Callable
from typing import Protocol

from router.gateway.http.client_limits import ClientLimits, Wait


class Waiting(Protocol):
    """A client's connection, as `ClientWait` sees it: what it waits for, and how it is closed."""

    @property
    def expects_head(self) -> bool:
        """Whether the next byte is to begin a request, or to go on with its head."""
        ...

    def give_up(self) -> None:
        """Close the connection: the client has had its time."""
        ...


class ClientWait:
    """The waits of one connection, on the wheel of all; while the gateway is at work, none runs.

    `head_since` is when a head began to be waited for, `idle_since` when the last answer ended,
    `stalled_since` (or 0) when the client stopped reading.
    """

    __slots__ = (
        "_limits", "_now", "_tick", "_waiting", "head_since", "idle_since", "stalled_since"
    )  # fmt: skip

    def __init__(self, waiting: Waiting, limits: ClientLimits, now: Callable[[], float]) -> None:
        self._waiting = waiting
        self._limits = limits
        self._now = now
        self._tick: int | None = None
        self.head_since = 0.0
        self.idle_since = 0.0
        self.stalled_since = 0.0

    def for_head(self) -> None:
        """The client begins a head, or has connected to do so."""
        self.head_since = self._now()
        self._look_within(self._limits.allowed_s(Wait.HEADER))

    def to_send(self) -> None:
        """The client has stopped reading."""
        self.stalled_since = self._now()
        self._look_within(self._limits.allowed_s(Wait.SEND))

    def idle(self) -> None:
        """An answer has ended."""
        self.idle_since = self._now()

    def current(self) -> tuple[Wait, float]:
        """What is waited for, and since when. While the gateway is at work, it is for nothing."""
        if self.stalled_since:
            return Wait.SEND, self.stalled_since
        if not self._waiting.expects_head:
            return Wait.IDLE, self._now()
        if self.head_since > self.idle_since:
            return Wait.HEADER, self.head_since
        return Wait.IDLE, self.idle_since

    def expire(self) -> None:
        """Look whether the client has taken too long, and look again if not yet."""
        self._tick = None
        wait, since = self.current()
        left_s = since + self._limits.allowed_s(wait) - self._now()
        if left_s > 0:
            self._look_within(left_s)
            return
        self._limits.timed_out[wait] += 1
        self._waiting.give_up()

    def end(self) -> None:
        """The connection is gone."""
        if self._tick is not None:
            self._limits.wheel.disarm(self._tick, self)
            self._tick = None

    def _look_within(self, delay_s: float) -> None:
        self.end()
        self._tick = self._limits.wheel.arm(self._limits.clock() + delay_s, self)
