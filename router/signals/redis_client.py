"""Connections to Redis, as the whole gateway makes them: with deadlines, without a second try."""

import asyncio

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

CLIENT_NAME = "hybrid-router"  # in the server's list of clients


def redis_client(url: str, timeout_s: float, max_connections: int) -> Redis:
    """A client whose operations take so long at most. Raises ValueError for what is no URL."""
    try:
        return Redis.from_url(
            url,
            max_connections=max_connections,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            client_name=CLIENT_NAME,
            driver_info=None,  # the default reads package metadata from disk at every connect
            # Its handshake may resolve the host's name on the event loop.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError:
        # The original message may quote a part of the URL, and with it the password.
        raise ValueError(
            "not a Redis URL: expected redis://, rediss:// or unix://, then host, port and database"
        ) from None


def cancellations() -> int:
    """How often this task has been told to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def raise_if_cancelled(before: int = 0) -> None:
    """Make up for a cancellation that was swallowed since there were so many.

    The client writes in `asyncio.wait_for`, which before Python 3.12 forgets one that comes in the
    very turn in which it has its result. The loop would never end, nor the gateway that waits for
    it.
    """
    if cancellations() > before:
        raise asyncio.CancelledError
