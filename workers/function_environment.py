"""One environment of a function that is called over HTTP: its models, and its first inference.

Decides what an answer tells about the start of its environment. Imports nothing heavy by itself:
loading the runtime is part of the start that it measures.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from workers.protocol import Reply

COLD_START_HEADER: Final = "x-cold-start"
INIT_HEADER: Final = "x-init-ms"

# No platform here takes a larger request; a compressed body may inflate to as much.
MAX_BODY_BYTES: Final = 100_000_000


class FunctionEnvironment:
    """Answers requests; may be called from several threads."""

    def __init__(
        self, environment: Mapping[str, str], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Load what the variables name; raises as `direct.load_catalog` does."""
        started = clock()
        from workers import direct  # noqa: PLC0415 - what takes the time is to be measured

        self._direct = direct
        self._catalog = direct.load_catalog(environment)
        self._init_s = clock() - started
        self._inferences = count()  # counting is atomic

    def answer(
        self, verb: str, path: str, headers: Mapping[str, str], body: Callable[[], bytes]
    ) -> "Reply":
        """The reply to a request; `path` is still quoted, header names may have any case."""
        lowered = {name.lower(): value for name, value in headers.items()}
        work = partial(
            self._direct.answer, self._catalog, verb, path, lowered, body, MAX_BODY_BYTES
        )
        reply = self._direct.guarded(work)
        # Platforms probe an environment before its first inference, and learn nothing from that.
        if not self._direct.is_inference(verb, path):
            return reply
        return reply._replace(headers={**reply.headers, **self._start_headers()})

    def _start_headers(self) -> dict[str, str]:
        if next(self._inferences):
            return {COLD_START_HEADER: "false"}
        return {COLD_START_HEADER: "true", INIT_HEADER: f"{self._init_s * 1e3:.1f}"}
