"""What of the configured totals each of several processes of one gateway may use. Pure.

Shares add up to the total exactly, so that no limit is exceeded however the load is spread. Rates
of API keys are not here: a client may have one connection only, so processes count them together.
"""

from collections.abc import Iterator
from typing import TypeVar

from router.settings.functions import ServerlessSettings
from router.settings.pools import PoolSettings
from router.settings.problems import KeyPath
from router.settings.queue import QueueSettings
from router.settings.schema import ModelSettings, Settings

B = TypeVar("B", ServerlessSettings, PoolSettings)


def share(total: int, number: int, of: int) -> int:
    """The share of the process `number` (from 1) of so many."""
    return total // of + (number <= total % of)


def shared(settings: Settings, number: int, of: int) -> Settings:
    """The settings of one process: its share of connections, memory, calls and queues."""
    server = settings.server.model_copy(
        update={
            "max_connections": share(settings.server.max_connections, number, of),
            "max_buffered_bytes": share(settings.server.max_buffered_bytes, number, of),
        }
    )
    models = tuple(_model(model, number, of) for model in settings.models)
    pools = {name: _with_queue(pool, number, of) for name, pool in settings.pools.items()}
    return settings.model_copy(update={"server": server, "models": models, "pools": pools})


def _model(model: ModelSettings, number: int, of: int) -> ModelSettings:
    function, pool = model.serverless, model.pool
    if function is not None:
        calls = share(function.max_concurrency, number, of)
        function = _with_queue(function, number, of).model_copy(update={"max_concurrency": calls})
    if pool is not None:
        pool = _with_queue(pool, number, of)
    return model.model_copy(update={"serverless": function, "pool": pool})


def _with_queue(backend: B, number: int, of: int) -> B:
    queue: QueueSettings = backend.queue
    places = {
        "max_requests": share(queue.max_requests, number, of),
        "max_bytes": share(queue.max_bytes, number, of),
    }
    return backend.model_copy(update={"queue": queue.model_copy(update=places)})


def too_small_to_share(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Totals that leave a process without any use, each with its key."""
    server = settings.server
    of = server.processes
    if of == 1:
        return
    if server.max_connections < of:
        yield ("server", "max_connections"), f"must be at least server.processes ({of})"
    if server.max_buffered_bytes // of < server.max_body_bytes:
        message = f"must be at least server.processes ({of}) times server.max_body"
        yield ("server", "max_buffered"), message
    for index, model in enumerate(settings.models):
        if model.serverless is not None and model.serverless.max_concurrency < of:
            path: KeyPath = ("models", index, "serverless", "max_concurrency")
            yield path, f"must be at least server.processes ({of}): each of them calls for itself"
