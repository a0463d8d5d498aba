"""Decides which environment of one function serves the next invocation.

Pure bookkeeping: no processes, clock or asyncio. It admits at most `limit` invocations at once,
prefers the environment used most recently (so that surplus ones idle out), and never gives an
environment a second invocation. A state change and its caller's action must have no `await`
between them.
"""

import itertools
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where an environment is in its life; a stopped one is in no pool."""

    STARTING = "starting"  # its process initialises, with one invocation waiting for it
    BUSY = "busy"  # one invocation was given to it
    RETURNING = "returning"  # it has answered and is about to ask for more
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Reuse:
    """Give the invocation to this environment."""

    environment: int


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new environment under this id for the invocation."""

    environment: int


class EnvironmentPool:
    """The environments of one function and the invocations that may run at once.

    Callers pair each successful `try_reserve` with exactly one `release`, and call `choose` only
    while they hold a reservation. Unknown ids raise KeyError.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reserved = 0
        self._ids = itertools.count(1)
        self._states: dict[int, State] = {}
        # Returning and idle ones, as an insertion-ordered set: the last key answered last.
        self._free: dict[int, None] = {}

    @property
    def reserved(self) -> int:
        """Invocations admitted and not yet released."""
        return self._reserved

    def state(self, environment: int) -> State | None:
        """The environment's state; None once it was removed."""
        return self._states.get(environment)

    def try_reserve(self) -> bool:
        """Admit one invocation, or return False where `limit` are already in flight."""
        if self._reserved >= self._limit:
            return False
        self._reserved += 1
        return True

    def release(self) -> None:
        """Give one reservation back. Raises RuntimeError if there is none."""
        if self._reserved == 0:
            raise RuntimeError("released more than was reserved")
        self._reserved -= 1

    def choose(self) -> Reuse | Start:
        """Pick for one admitted invocation: what answered last, else a new environment.

        One that has yet to poll counts as well: a caller that follows up at once would otherwise
        take turns between environments of which one could idle out.
        There is always room: every other environment that is starting or busy belongs to another
        reservation, so they are fewer than `limit`. Raises RuntimeError without an admission.
        """
        if self._free:
            environment, _ = self._free.popitem()
            self._states[environment] = State.BUSY
            return Reuse(environment)
        if len(self._states) >= self._limit:
            raise RuntimeError("chose without a reservation")
        environment = next(self._ids)
        self._states[environment] = State.STARTING
        return Start(environment)

    def started(self, environment: int) -> None:
        """Its process is initialised and runs the invocation it was started for."""
        self._expect(environment, State.STARTING)
        self._states[environment] = State.BUSY

    def answered(self, environment: int) -> None:
        """Its invocation is over; it may be chosen again at once."""
        self._expect(environment, State.BUSY)
        self._states[environment] = State.RETURNING
        self._free[environment] = None

    def polled(self, environment: int) -> None:
        """Note that an environment asks for work: idle, unless it was given some meanwhile."""
        if self._states[environment] is State.RETURNING:
            self._states[environment] = State.IDLE

    def remove(self, environment: int) -> None:
        """Forget an environment that serves no more, whatever it was doing."""
        del self._states[environment]
        self._free.pop(environment, None)

    def _expect(self, environment: int, state: State) -> None:
        if self._states[environment] is not state:
            raise RuntimeError(f"environment is {self._states[environment]}, not {state}")
