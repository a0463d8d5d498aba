import asyncio
import errno
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from router.domain.decision import Backend, Outcome, Reason
from router.domain.spent import Spent
from router.domain.tokens import Tokens
from router.telemetry import log_file, logs
from router.telemetry.log_file import ATOMIC_WRITE_BYTES, LineWriter
from router.telemetry.logs import (
    MAX_TEXT_LENGTH,
    AccessLog,
    AccessRecord,
    Answered,
    LineTemplate,
    encode_line,
)
from router.telemetry.own_log import configure_logging

NOW = 1_790_000_000.25
RECORD = AccessRecord(
    request_id="r-1",
    protocol="oip",
    model="fraud",
    version="2",
    tenant=None,
    payload_bytes=300,
    backend=Backend.POOL,
    reason=Reason.WARM_CAPACITY,
    rule="default",
    endpoint="p-1",
    attempts=1,
    status=200,
    outcome=Outcome.OK,
    cold_start=False,
    total_ms=12.5,
    upstream_ms=11.25,
    queue_ms=None,
    deadline_ms=None,
    cost_usd=0.0,
    asked_model="fraud",
)


def numbered(number: int) -> AccessRecord:
    return replace(RECORD, request_id=f"r-{number}")


def ids(text: str | bytes) -> list[str]:
    return [json.loads(line)["request_id"] for line in text.splitlines()]


@asynccontextmanager
async def running(log: AccessLog) -> AsyncIterator[None]:
    task = asyncio.create_task(log.run())
    try:
        yield
        assert not task.done(), "the access log stopped by itself"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_line_holds_the_time_and_every_field_of_the_record() -> None:
    line = encode_line(RECORD, NOW)

    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "ts": "2026-09-21T14:13:20.250Z",
        "request_id": "r-1",
        "protocol": "oip",
        "model": "fraud",
        "version": "2",
        "tenant": None,
        "payload_bytes": 300,
        "backend": "pool",
        "reason": "warm_capacity",
        "rule": "default",
        "endpoint": "p-1",
        "attempts": 1,
        "status": 200,
        "outcome": "ok",
        "cold_start": False,
        "total_ms": 12.5,
        "upstream_ms": 11.25,
        "queue_ms": None,
        "deadline_ms": None,
        "cost_usd": 0.0,
        "asked_model": "fraud",
        "error": None,
        "cause": None,
        "trace_id": None,
        "gb_s": None,
        "input_tokens": None,
        "output_tokens": None,
    }


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        pytest.param('a"}\n{"forged": 1}', 'a"}\n{"forged": 1}', id="an attempt to forge a line"),
        pytest.param("\x1b[31mred\x00", "\x1b[31mred\x00", id="terminal control"),
        pytest.param("naïve ☃", "naïve ☃", id="beyond ASCII"),
        pytest.param("bad\udcff", "bad\\udcff", id="bytes that are not UTF-8"),
        pytest.param("x" * 100_000, "x" * MAX_TEXT_LENGTH, id="huge"),
        pytest.param("\udcff" * 9000, ("\\udcff" * 99)[:MAX_TEXT_LENGTH], id="huge and not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["request_id", "model", "version", "tenant"])
def test_text_of_clients_cannot_break_a_line(name: str, text: str, logged: str) -> None:
    line = encode_line(replace(RECORD, **{name: text}), NOW)

    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert json.loads(line)[name] == logged


def test_the_longest_line_is_still_one_atomic_write() -> None:
    worst = "\x01" * 10_000  # six bytes for each character once escaped
    record = replace(RECORD, request_id=worst, model=worst, version=worst, tenant=worst)

    assert len(encode_line(record, NOW)) <= ATOMIC_WRITE_BYTES


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(RECORD, id="plain"),
        pytest.param(
            replace(RECORD, model='50%d "total_ms":0.0,"upstream_ms":0.0'), id="its words"
        ),
        pytest.param(replace(RECORD, rule="100 % of %b\\", tenant="\udce9"), id="odd text"),
    ],
)
@pytest.mark.parametrize("request_id", ["r-7", 'a"b', "back\\slash", "%d%s"])
@pytest.mark.parametrize("deadline_ms", [None, 250.0, 0.5])
@pytest.mark.parametrize("tokens", [None, Tokens(12, 345)])
@pytest.mark.parametrize("spent", [None, Spent(0.0, 1e-6, 0.0625)])
def test_a_template_gives_the_line_of_the_record(
    record: AccessRecord, request_id: str, deadline_ms: float | None, tokens: Tokens | None,
    spent: Spent | None,
) -> None:  # fmt: skip
    trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    own = (request_id.encode(), 7.0, 0.0125, 0.011_25, 0.0, 4711, deadline_ms)
    answered = (*own, trace, trace, None, tokens, spent)
    template = LineTemplate(record, tells_tokens=tokens is not None, is_call=spent is not None)
    made = template.line(answered, NOW - 7.0, usd_per_s=0.002)

    expected = replace(
        record, request_id=request_id, total_ms=12.5, upstream_ms=11.25,
        payload_bytes=4711, deadline_ms=deadline_ms,
        cost_usd=0.000_026 if spent else 0.000_025, gb_s=spent and spent.gb_s,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        input_tokens=tokens and tokens.input, output_tokens=tokens and tokens.output,
    )  # fmt: skip
    assert json.loads(made) == json.loads(encode_line(expected, NOW))
    assert made.endswith(b"}\n")
    assert made.count(b"\n") == 1


def ended(request_id: bytes, at: float) -> Answered:
    return request_id, at, 0.1, 0.1, 0.1, 300, None, b"", b"", None, None, None


async def test_what_is_recorded_late_stands_where_it_happened(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    now = NOW
    log = AccessLog(str(path), lambda: now)
    log.catch_up = lambda: log.record_all(
        LineTemplate(RECORD), [ended(b"r-1", 10.0), ended(b"r-3", 12.0)], 13.0
    )
    now = NOW + 1  # the other clock says 11
    log.record(numbered(2))
    now = NOW + 3
    await log.close()

    assert ids(path.read_text()) == ["r-1", "r-2", "r-3"]


async def test_a_line_that_a_full_disk_has_cut_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), lambda: NOW)
    whole = len(encode_line(RECORD, NOW))
    room = whole + 100
    write = os.write

    def scarce(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(fd, data[:room])
        room -= written
        return written

    monkeypatch.setattr("router.telemetry.log_file.os.write", scarce)
    for number in range(1, 4):
        log.record(numbered(number))
    await log.close()
    room = 1 << 20
    log.record(numbered(4))
    log.record(numbered(5))
    await log.close()

    lines = path.read_bytes().splitlines()
    assert len(lines[1]) == 100, "what there was room for"
    assert ids(b"\n".join([lines[0], *lines[2:]])) == ["r-1", "r-4", "r-5"]
    assert log.dropped_lines == 3, "none of the first flush is known to be whole"
    assert "lines are being lost" in caplog.text
    assert "3 lines were lost" in caplog.text


async def test_a_sample_is_spread_evenly_and_has_every_failure(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), lambda: NOW, sample=0.25)
    for number in range(1, 9):
        log.record(numbered(number))
        log.record(replace(numbered(100 + number), status=503))
    log.record_all(LineTemplate(RECORD), [ended(b"b-%d" % n, 1.0) for n in range(8)], 1.0)
    failed = LineTemplate(replace(RECORD, status=500))
    log.record_all(failed, [ended(b"f-%d" % n, 1.0) for n in range(2)], 1.0)
    await log.close()

    written = ids(path.read_text())
    assert [found for found in written if found.startswith(("r-10", "f-"))] == [
        *(f"r-10{number}" for number in range(1, 9)), "f-0", "f-1",
    ]  # fmt: skip
    assert len(written) == 10 + 2 + 2
    assert log.dropped_lines == 0


async def test_lines_are_written_in_order_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), lambda: NOW)
    async with running(log):
        log.record(numbered(1))
        await eventually(path.exists)
        for number in range(2, 100):
            log.record(numbered(number))
        await eventually(lambda: len(path.read_text().splitlines()) == 99)

    assert ids(path.read_text()) == [f"r-{number}" for number in range(1, 100)]
    assert log.dropped_lines == 0


async def test_stopping_writes_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    never = asyncio.Event()

    async def sleep(_: float) -> None:
        await never.wait()

    log = AccessLog(str(path), lambda: NOW, sleep)
    async with running(log):
        await asyncio.sleep(0)
        log.record(RECORD)

    assert ids(path.read_text()) == ["r-1"]


async def test_a_rotated_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), lambda: NOW)
    async with running(log):
        log.record(numbered(1))
        await eventually(path.exists)
        await eventually(lambda: bool(path.read_bytes()))

        path.rename(tmp_path / "access.log.1")
        log.record(numbered(2))
        await eventually(lambda: path.exists() and bool(path.read_bytes()))

    assert ids((tmp_path / "access.log.1").read_text()) == ["r-1"]
    assert ids(path.read_text()) == ["r-2"]


async def test_a_full_file_is_renamed_and_so_many_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    size = len(encode_line(numbered(1), NOW))
    log = AccessLog(str(path), lambda: NOW, writer=LineWriter(str(path), 2 * size, 2))
    for number in range(1, 9):
        log.record(numbered(number))
        await log.close()

    found = {name: ids((tmp_path / name).read_text()) for name in os.listdir(tmp_path)}  # noqa: PTH208
    assert found == {
        "access.log": ["r-7", "r-8"],
        "access.log.1": ["r-5", "r-6"],
        "access.log.2": ["r-3", "r-4"],
    }
    assert log.dropped_lines == 0
    assert not path.stat().st_mode & 0o007


def test_of_several_processes_one_renames_a_full_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    line = encode_line(RECORD, NOW)
    writers = [LineWriter(str(path), len(line), 9) for _ in range(3)]
    for writer in writers:
        writer.write([line], lambda: 0.0)
    writers[0].write([line], lambda: 0.0)  # renames what all have open
    for writer in writers[1:]:
        writer.write([line], lambda: 0.0)

    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "access.log", *(f"access.log.{number}" for number in range(1, 6)),
    ]  # fmt: skip
    assert all(len(file.read_bytes()) == len(line) for file in tmp_path.iterdir())


async def test_an_existing_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(encode_line(numbered(1), NOW))
    log = AccessLog(str(path), lambda: NOW)
    log.record(numbered(2))
    await log.close()

    assert ids(path.read_text()) == ["r-1", "r-2"]


async def test_a_new_file_is_closed_to_strangers(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), lambda: NOW)
    log.record(RECORD)
    await log.close()

    assert not path.stat().st_mode & 0o007


async def test_off_writes_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = AccessLog("off", lambda: NOW)
    log.record(RECORD)
    await log.close()

    assert os.listdir() == []  # noqa: PTH208 - nothing, under any name
    assert log._lines == []


async def test_stderr_gets_the_lines(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("stderr", lambda: NOW)
    log.record(RECORD)
    await log.close()

    assert ids(capfd.readouterr().err) == ["r-1"]


async def test_a_full_buffer_drops_new_lines_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BUFFER_BYTES", 3 * len(encode_line(numbered(1), NOW)))
    path = tmp_path / "access.log"
    log = AccessLog(str(path), lambda: NOW)
    for number in range(1, 6):
        log.record(numbered(number))
    await log.close()
    assert ids(path.read_text()) == ["r-1", "r-2", "r-3"]
    assert log.dropped_lines == 2

    log.record(numbered(6))  # there is room again
    await log.close()
    assert ids(path.read_text())[-1] == "r-6"


async def test_a_target_that_cannot_be_written_loses_lines_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "missing"
    log = AccessLog(str(folder / "access.log"), lambda: NOW)
    async with running(log):
        log.record(numbered(1))
        await eventually(lambda: log.dropped_lines == 1)
        log.record(numbered(2))
        await eventually(lambda: log.dropped_lines == 2)
        assert len(caplog.records) == 1
        assert "access.log" in caplog.text

        folder.mkdir()
        log.record(numbered(3))
        await eventually((folder / "access.log").exists)

    assert ids((folder / "access.log").read_text()) == ["r-3"]
    assert log.dropped_lines == 2


async def test_a_reader_that_stopped_reading_costs_lines_and_not_the_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 1000  # far more than a pipe holds
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        with os.fdopen(writing, "wb"):
            monkeypatch.setattr(log_file, "STDERR_FD", writing)
            monkeypatch.setattr(log_file, "WRITE_TIMEOUT_S", 0.2)
            log = AccessLog("stderr", lambda: NOW)
            for number in range(count):
                log.record(numbered(number))
            async with asyncio.timeout(5):
                await log.close()
        written = ids(await asyncio.to_thread(pipe.read))

    # What was written is whole lines from the beginning; the rest is accounted for.
    assert 0 < len(written) < count
    assert written == [f"r-{number}" for number in range(len(written))]
    assert log.dropped_lines == count - len(written)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
def test_the_process_log_is_plain_lines_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    log = logging.getLogger("router.test")
    log.debug("too quiet")
    log.info("ready on %s", "127.0.0.1:8080")
    log.warning("evil\nFORGED line \x1b[31m")

    first, second = capsys.readouterr().err.splitlines()
    stamp, rest = first.split(" ", 1)
    assert rest == "INFO router.test ready on 127.0.0.1:8080"
    assert len(stamp) == len("2026-09-21T14:13:20.250Z")
    assert stamp.endswith("Z")
    assert second.endswith(r"WARNING router.test evil\x0aFORGED line \x1b[31m")


@pytest.mark.usefixtures("restored_logging")
def test_the_process_log_keeps_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO")
    try:
        int("the cause")
    except ValueError:
        logging.getLogger("router.test").exception("it failed")

    written = capsys.readouterr().err
    assert "it failed\nTraceback" in written
    assert "ValueError: invalid literal" in written


@pytest.mark.usefixtures("restored_logging")
def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("loud")


def test_the_standard_error_descriptor_is_the_one_of_the_process() -> None:
    assert sys.__stderr__ is not None
    assert sys.__stderr__.fileno() == log_file.STDERR_FD
