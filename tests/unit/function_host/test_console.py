import json
import logging
import threading
from collections.abc import Iterator

import pytest

from workers.function_host.console import (
    MAX_LINE_BYTES,
    Console,
    ConsoleHandler,
    FunctionLog,
    RateBound,
)


class Sink:
    """Takes lines; can be made to block like a stuck pipe."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.open = threading.Event()
        self.entered = threading.Event()
        self.open.set()

    def write(self, text: str) -> None:
        self.entered.set()
        self.open.wait()
        self.lines.append(text)


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.open.set()


def test_writes_lines_in_order_and_the_rest_on_close(sink: Sink) -> None:
    console = Console(sink.write)
    console.line("one")
    console.event("invocation", {"status": "ok"})
    console.close()
    assert sink.lines == ["one\n", '{"event": "invocation", "status": "ok"}\n']


def test_a_stuck_reader_costs_lines_not_callers(sink: Sink) -> None:
    sink.open.clear()
    console = Console(sink.write)
    console.line("first")
    assert sink.entered.wait(5)
    for i in range(5000):
        console.line(str(i))
    sink.open.set()
    console.close()
    assert sink.lines[:3] == [
        "first\n",
        '0\n{"event": "log_lines_dropped", "lines": 3000}\n',
        "1\n",
    ]
    assert sink.lines[-1] == "1999\n"


def test_close_gives_up_on_a_stuck_reader(sink: Sink) -> None:
    sink.open.clear()
    console = Console(sink.write)
    for _ in range(5000):
        console.line("x")
    console.close()
    assert sink.lines == []


def test_a_closed_stderr_is_no_error() -> None:
    def fail(_: str) -> None:
        raise OSError(32, "broken pipe")

    console = Console(fail)
    console.line("x")
    console.close()


@pytest.mark.parametrize(
    ("times", "admitted"),
    [
        pytest.param([0.0] * 5, 3, id="the burst"),
        pytest.param([0.0] * 4 + [0.5], 4, id="one token back after half a second"),
        pytest.param([0.0] * 3 + [0.4], 3, id="not before"),
        pytest.param([100.0] * 5, 3, id="never more than the burst"),
    ],
)
def test_rate_bound(times: list[float], admitted: int) -> None:
    bound = RateBound(per_s=2.0, burst=3.0, now=0.0)
    assert sum(bound.admit(now) for now in times) == admitted
    assert bound.take_refused() == len(times) - admitted
    assert bound.take_refused() == 0


def test_function_output_is_named_cleaned_and_bounded_in_rate(sink: Sink) -> None:
    now = [0.0]
    console = Console(sink.write)
    log = FunctionLog("f", console, lambda: now[0])
    log.line(b"[ERROR] boom\rTraceback\r  line \x1b[31m\xff\r")
    for _ in range(1000):
        log.line(b"x")
    now[0] = 10.0
    log.line(b"later")
    console.close()
    assert (
        sink.lines[0]
        == "[f] [ERROR] boom | Traceback |   line \\x1b[31m\N{REPLACEMENT CHARACTER}\n"
    )
    assert sink.lines.count("[f] x\n") == 199
    assert sink.lines[-2:] == ["[f] ... 801 lines not shown\n", "[f] later\n"]


def test_library_logs_become_one_bounded_line(sink: Sink) -> None:
    console = Console(sink.write)
    handler = ConsoleHandler(console)
    error = ValueError("why" * 5000)
    handler.handle(
        logging.makeLogRecord(
            {
                "name": "aiohttp.server",
                "levelname": "ERROR",
                "msg": "request from %s",
                "args": ("x" * 5000,),
                "exc_info": (ValueError, error, None),
            }
        )
    )
    console.close()
    (line,) = sink.lines
    event = json.loads(line)
    assert event["level"] == "error"
    assert len(event["message"]) == MAX_LINE_BYTES
    assert event["traceback"].endswith("why\n")
    assert len(event["traceback"]) == MAX_LINE_BYTES
