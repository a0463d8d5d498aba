"""Rules that hold for every test.

With `--asyncio-debug` (and PYTHONASYNCIODEBUG=1, for processes that tests start) event loops are in
their debug mode, and what asyncio warns of then is an error as well: `make test-debug`.
"""

import gc
import inspect
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the collector what lives until the end: modules and thousands of tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_to_the_collector() -> Iterator[None]:
    """Meet what a module left open, and its warnings, while the module can still be blamed."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an async test whose event loop is held up by a blocking call of the product."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield
        return
    with blockbuster_ctx(["router", "workers"]) as detector:
        _allow(detector)
        yield


_SLOW = "Executing %s took %.3f seconds"
_SLOW_S = 0.5
"""More than any callback should take, on cores that are shared and in a mode that is slow."""


class _Complaints(logging.Handler):
    """Keeps what asyncio says against the code that uses it."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        arguments: Any = record.args
        if record.msg != _SLOW or arguments[1] >= _SLOW_S:
            self.said.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_complaints_of_asyncio(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose tasks fail unseen or are lost; in debug mode, also one that is held up."""
    is_debug = request.config.getoption("asyncio_debug")
    complaints = _Complaints(logging.WARNING if is_debug else logging.ERROR)
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    yield
    logger.removeHandler(complaints)
    assert complaints.said == []


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
