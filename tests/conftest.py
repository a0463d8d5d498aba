"""Rules that hold for every test."""

import inspect
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an async test whose event loop is held up by a blocking call of the product."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield
        return
    with blockbuster_ctx(["router", "workers"]) as detector:
        _allow(detector)
        yield


def _allow(detector: BlockBuster) -> None:
    """What may block: each in named functions, and why."""
    # Tests prepare a watcher and answer for its reload; the gateway reads files before its loop
    # runs, or in a thread.
    detector.functions["io.BufferedReader.read"].can_block_in(
        "settings/test_watcher.py",
        {
            "__call__",
            "watcher_of",
            "reload",
            "test_any_error_of_reading_is_logged_and_survived",
            "test_the_loop_sleeps_between_looks_and_ends_when_cancelled",
        },
    )
    # A worker lists its repository before its loop runs; tests do it in theirs.
    for name in ("os.stat", "os.listdir"):
        detector.functions[name].can_block_in("workers/service.py", "__init__")
    # The function host's last act, after everything else has ended: documented to block.
    detector.functions["threading.Lock.acquire"].can_block_in("function_host/console.py", "close")
    # Credentials are read in a thread; the client library wants a loop for it, which is its own.
    for function in detector.functions.values():
        function.can_block_in("pool/kube_api.py", "_configuration")
