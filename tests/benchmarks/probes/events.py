"""How long each server-sent event is held before it is passed on, in streams that are not busy."""

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median, quantiles

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.results import Finding
from tests.benchmarks.scenarios import BY_NAME, Scenario

_STREAMS = 4
_TIMEOUT_S = 30.0
_DATA = b"data: "


def event_delays(port: int, system: str) -> list[Finding]:
    """Milliseconds from the upstream's sending of an event to the client's reading it."""
    scenario = BY_NAME["sse-128"]
    # What a system does in its first second is not what it does to events.
    list(_delays_ms(port, scenario))
    with ThreadPoolExecutor(_STREAMS) as clients:
        streams = clients.map(lambda _: list(_delays_ms(port, scenario)), range(_STREAMS))
        delays = [delay for stream in streams for delay in stream]
    if len(delays) != _STREAMS * scenario.events:
        raise BenchmarkError(f"{len(delays)} of {_STREAMS * scenario.events} events came")
    what = f"{_STREAMS} SSE streams, sent to read, {system}"
    figures = {"p50": median(delays), "p99": quantiles(delays, n=100)[-1], "longest": max(delays)}
    return [
        Finding(f"sse-{name}-{system}", f"{what}: {name}", value, "ms")
        for name, value in figures.items()
    ]


def _delays_ms(port: int, scenario: Scenario) -> Iterator[float]:
    """Of one stream. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    headers = dict(line.split(": ", 1) for line in scenario.lines)
    headers["content-type"] = scenario.content_type
    try:
        connection.request("POST", scenario.path, scenario.body, headers)
        answer = connection.getresponse()
        while line := answer.readline():
            if line.startswith(_DATA):
                read_ns = time.monotonic_ns()
                yield (read_ns - json.loads(line[len(_DATA) :])["sent_ns"]) / 1e6
    except http.client.HTTPException as error:
        raise OSError(f"no valid HTTP answer: {error!r}") from error
    finally:
        connection.close()
