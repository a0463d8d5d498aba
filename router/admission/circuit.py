"""When to stop sending to something that keeps failing, and when to try it again.

A pure state machine: closed, open for a while, half-open (one trial), with a doubling pause. Used
for a whole function and for single endpoints of a pool. Says nothing about concurrency.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CircuitParams:
    """Open when so many of the last calls failed, for `pause_s`, doubling up to `max_pause_s`.

    Of the last `window` calls, `failures_to_open` and the share `failure_ratio` must have failed;
    without a window, so many in a row. Pauses begin small again once a circuit has stayed closed
    for `forgive_ratio` times the last one: what fails, works and fails again at once is left alone
    for longer and longer.
    """

    failures_to_open: int = 5
    pause_s: float = 1.0
    max_pause_s: float = 30.0
    forgive_ratio: float = 0.0
    window: int = 0
    failure_ratio: float = 1.0


class GrowingPause:
    """A pause that doubles each time, until what it is for has been good for long enough."""

    __slots__ = ("_forgiven_at", "_length_s")

    def __init__(self) -> None:
        self._length_s = 0.0
        self._forgiven_at = 0.0

    def take(self, now: float, params: CircuitParams, *, is_forgivable: bool = True) -> float:
        """The length of a pause that begins now."""
        is_new = not self._length_s or (is_forgivable and now >= self._forgiven_at)
        doubled_s = min(2 * self._length_s, params.max_pause_s)
        self._length_s = params.pause_s if is_new else max(doubled_s, params.pause_s)
        self._forgiven_at = now + (1 + params.forgive_ratio) * self._length_s
        return self._length_s


class CircuitBreaker:
    """Counts outcomes and says whether a call may be made now."""

    __slots__ = (
        "_full", "_history", "_open_until", "_opened_at", "_params", "_pause", "_pause_s",
        "_paused_until", "_trial_until", "opened",
    )  # fmt: skip

    def __init__(self, params: CircuitParams = CircuitParams()) -> None:
        self.params = params  # sets `_params` and `_full`
        # The last outcomes as bits, 1 for a failure, below a 1 that says how many there are.
        self._history = 1
        self._pause = GrowingPause()
        self._pause_s = params.pause_s
        self._open_until = 0.0
        self._trial_until = 0.0
        self._opened_at = 0.0
        self._paused_until = 0.0
        self.opened = 0

    @property
    def params(self) -> CircuitParams:
        """When it opens, and for how long; what it has seen stays when they change."""
        return self._params

    @params.setter
    def params(self, params: CircuitParams) -> None:
        self._params = params
        self._full = 1 << max(params.window, params.failures_to_open)

    def is_open(self, now: float) -> bool:
        """Whether calls must not be made: open, paused, or half-open with its trial under way."""
        return self._open_until > now or self._trial_until > now or self._paused_until > now

    def open_for_s(self, now: float) -> float:
        """Seconds until a call may be made if nothing else happens; 0 if it may be made now."""
        return max(0.0, max(self._open_until, self._trial_until, self._paused_until) - now)

    @property
    def is_closed(self) -> bool:
        """Whether it is neither open nor waiting for a trial, at any time."""
        return self._open_until == 0.0

    def may_be_tried(self, now: float) -> bool:
        """Whether a trial is in order before a grown pause is over: the first pause is, at least.

        For when there is nothing else to send to.
        """
        first_until = self._opened_at + self.params.pause_s
        return not self.is_closed and now >= max(first_until, self._trial_until)

    def admit(self, now: float) -> None:
        """A call is sent. The first one after a pause is a trial; others wait for its outcome."""
        if self._open_until:
            # A trial whose outcome never comes must not keep the circuit closed to all others.
            is_early = self._open_until > now
            pause_s = self.params.pause_s if is_early else self._pause_s
            self._trial_until = now + min(2 * pause_s, self.params.max_pause_s)

    def not_tried(self) -> None:
        """A call that was admitted has not been made after all: the next one may be the trial."""
        self._trial_until = 0.0

    def succeeded(self) -> bool:
        """A call worked: close. Returns whether it had been open."""
        if self._open_until == 0.0:
            if self._history != self._full:  # asked for every answer
                self._remember(0)
            return False
        self._history = 1
        self._open_until = self._trial_until = 0.0
        return True

    def failed(self, now: float) -> bool:
        """A call failed; returns whether this opened the circuit."""
        was_trial = self._open_until > 0.0
        if not was_trial:
            self._remember(1)
            if not self._have_enough_failed():
                return False
        if self._open_until > now:  # sent before it opened, or to try it early
            self._opened_at, self._trial_until = now, 0.0
            return False
        self.opened += 1
        self._trial_until = 0.0
        self._pause_s = self._pause.take(now, self.params, is_forgivable=not was_trial)
        self._opened_at = now
        self._open_until = now + self._pause_s
        return True

    def _remember(self, outcome: int) -> None:
        self._history = self._history << 1 | outcome
        if self._history >= self._full << 1:
            self._history = self._history & (self._full - 1) | self._full

    def _have_enough_failed(self) -> bool:
        calls = self._history.bit_length() - 1
        failures = self._history.bit_count() - 1
        params = self.params
        return failures >= max(params.failures_to_open, params.failure_ratio * calls)

    def pause(self, now: float, seconds: float) -> None:
        """Make no call for a stated time, as when a platform says how long it throttles.

        No failure: calls sent before that succeed do not end it, and no trial follows.
        """
        until = now + min(seconds, self.params.max_pause_s)
        self._paused_until = max(self._paused_until, until)
