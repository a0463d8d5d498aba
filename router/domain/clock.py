"""The two ways to read time.

Decisions take `now`; long-lived objects take a `Clock`. Nothing else in the router reads a clock.
"""

from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
"""Seconds as a float. Monotonic unless a parameter is named `wall_clock` (seconds since 1970)."""

Sleep = Callable[[float], Awaitable[None]]
"""Suspends the caller for that many seconds."""
