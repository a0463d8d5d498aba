"""Settings of the queue that each backend of a model has.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from typing import Annotated

from pydantic import Field

from router.settings.quantities import COUNT, DURATION, GIB, HOUR_S, MIB, SIZE, Quantity
from router.settings.section import Section


class QueueSettings(Section):
    """Requests held while a backend cannot take them."""

    max_requests: Annotated[int, Quantity(COUNT, 0, 100_000)] = Field(
        default=100, description="most requests held; 0: none"
    )
    max_bytes: Annotated[int, Quantity(SIZE, 0, 64 * GIB)] = Field(
        default=64 * MIB, description="most body bytes held"
    )
    max_wait_s: Annotated[float, Quantity(DURATION, 0.0, HOUR_S)] = Field(
        default=30.0,
        alias="max_wait",
        description="longest time a request is held (its own deadline may end it sooner)",
    )
