"""Connections to Redis, as the whole gateway makes them: with deadlines, without a second try."""

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
