"""The access log: one JSON line for each request.

Decides what is kept of text that clients chose, and what is lost when the target cannot keep up:
lines are then dropped and counted. The request path never waits for it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from router.domain.clock import Clock, Sleep
from router.domain.events import EventKind, told
from router.domain.spent import Spent
from router.domain.tokens import Tokens
from router.domain.trace_context import read_lines
from router.telemetry.log_file import LineWriter

FLUSH_INTERVAL_S = 0.1
MAX_BUFFER_BYTES = 4 << 20
# Clients choose these lengths (request id, model, version); no line may become longer than a
# write to a pipe that is atomic.
MAX_TEXT_LENGTH = 128
_FAILED = 400

_CLIENT_TEXT = ("request_id", "model", "version", "tenant", "cause")

_log = logging.getLogger(__name__)


class AccessRecord(msgspec.Struct, frozen=True, gc=False):
    """What is logged of one request. None, what is not known or did not happen, becomes null.

    `error` is the code of what the gateway itself answered, `cause` what the client was told.
    `deadline_ms` is what the client asked for, `queue_ms` the wait for a slot, `upstream_ms` the
    time at backends; callers round to what they mean. `model` is the one that answered,
    `asked_model` the one that the client named, where the two may differ. Text that clients chose
    may be of any length and content: it is cut to MAX_TEXT_LENGTH characters and escaped when it is
    written.
    """

    request_id: str
    protocol: str
    model: str
    version: str | None
    tenant: str | None
    payload_bytes: int
    backend: str | None
    reason: str | None
    rule: str | None
    endpoint: str | None
    attempts: int
    status: int
    outcome: str
    cold_start: bool | None
    total_ms: float
    upstream_ms: float | None
    queue_ms: float | None
    deadline_ms: float | None
    cost_usd: float | None
    asked_model: str | None = None
    error: str | None = None
    cause: str | None = None
    trace_id: str | None = None
    gb_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


Answered = tuple[
    bytes, float, float, float, float, int, float | None, bytes, bytes, float | None,
    Tokens | None, Spent | None,
]  # fmt: skip
"""What differs between requests that are otherwise logged alike.

Their id (printable ASCII, at most MAX_TEXT_LENGTH), when they ended (monotonic), and the seconds
they took: in all, at the backend, and of the backend's own work; the bytes of their body; the
deadline that their client asked for, in milliseconds; the lines of the head about their trace, as
the client sent them, and as the attempt did (the same ones where nothing is traced); the seconds
that a cold start took, if that is known; the tokens that their answer tells; and what a call of a
function has cost.
"""


_OWN_FIELDS = (
    (b'"request_id":""', b'"request_id":"%b"'),
    (b'"payload_bytes":0', b'"payload_bytes":%d'),
    (b'"total_ms":0.0,"upstream_ms":0.0', b'"total_ms":%.3f,"upstream_ms":%.3f'),
    (b'"deadline_ms":null', b'"deadline_ms":%b'),
    (b'"cost_usd":0.0', b'"cost_usd":%.6g'),
    (b'"trace_id":null', b'"trace_id":%b'),
)
"""What a line says of its own, in the order of the record's fields."""


_GB_S = ((b'"gb_s":null', b'"gb_s":%b'),)
_TOKENS = (
    (b'"input_tokens":null', b'"input_tokens":%b'),
    (b'"output_tokens":null', b'"output_tokens":%b'),
)


class LineTemplate:
    """The lines of requests that differ only in what is `Answered`; quicker than line by line.

    `tells_tokens` says that their answers may tell some, `is_call` that they are a function's.
    """

    __slots__ = ("_is_call", "_tells_tokens", "_text", "may_be_left_out")

    def __init__(
        self, record: AccessRecord, *, tells_tokens: bool = False, is_call: bool = False
    ) -> None:
        """Take all but the id and the times from `record`."""
        self.may_be_left_out = record.status < _FAILED
        self._tells_tokens, self._is_call = tells_tokens, is_call
        blank = replace(
            record, request_id="", payload_bytes=0, total_ms=0.0, upstream_ms=0.0,
            deadline_ms=None, cost_usd=0.0, trace_id=None, gb_s=None,
        )  # fmt: skip
        text = b'{"ts":"%b.%03dZ",' + _encode(blank)[1:].replace(b"%", b"%%") + b"\n"
        # Quotes inside of texts are escaped, so that names are found only where they are fields.
        more = (*(_GB_S if is_call else ()), *(_TOKENS if tells_tokens else ()))
        for field, value in (*_OWN_FIELDS, *more):
            before, name, after = text.partition(field)
            if not name:
                raise AssertionError("an access record's fields have changed their order")
            text = before + value + after
        self._text = text

    def line(self, answered: Answered, offset_s: float, usd_per_s: float) -> bytes:
        """As `encode_line` at that time plus `offset_s`, but with all three digits of each time.

        `usd_per_s` is what its slot cost while the request lasted.
        """
        request_id, at, total_s, upstream_s, _, size, deadline_ms, _ = answered[:8]
        trace, _, tokens, spent = answered[8:]
        at += offset_s
        second = int(at)
        request_id = request_id.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        stamp = _second_text(second)
        thousandths = (at - second) * 1000
        asked = b"null" if deadline_ms is None else msgspec.json.encode(deadline_ms)
        times, usd = (total_s * 1e3, upstream_s * 1e3), total_s * usd_per_s
        if spent is not None:
            usd += spent.call_usd
        parent = read_lines(trace) if trace else None
        traced = b"null" if parent is None else b'"%b"' % parent.trace_id.encode()
        own: tuple[object, ...] = stamp, thousandths, request_id, size, *times, asked, usd, traced
        if self._is_call:
            own += (b"%.6g" % spent.gb_s if spent is not None and spent.gb_s else b"null",)
        return self._text % (own + _counts(tokens) if self._tells_tokens else own)


def _counts(tokens: Tokens | None) -> tuple[bytes, bytes]:
    return (b"null", b"null") if tokens is None else (b"%d" % tokens.input, b"%d" % tokens.output)


class AccessLog:
    """Writes access records to `target`: "stderr", "off", or the path of a file.

    `record`, `record_all` and `run` belong to the event loop's thread. `sample` is the share of
    requests without a failure that get a line, all others have one. `catch_up` is called before
    lines are written: whoever records late records them then. `dropped_lines` only grows.
    """

    def __init__(
        self,
        target: str,
        wall_clock: Clock,
        sleep: Sleep = asyncio.sleep,
        sample: float = 1.0,
        writer: LineWriter | None = None,
    ) -> None:
        self.catch_up: Callable[[], None] = lambda: None
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._sample = sample
        self._due = 0.0
        self._writer = None if target == "off" else writer or LineWriter(target)
        self._lines: list[bytes] = []
        self._bytes = 0
        self._failing = False
        self.dropped_lines = 0

    @property
    def is_on(self) -> bool:
        """Whether records are written anywhere."""
        return self._writer is not None

    def record(self, record: AccessRecord) -> None:
        """Add a line for one request, or drop and count it when the buffer is full."""
        is_left_out = record.status < _FAILED and not self._is_sampled()
        if self._writer is None or is_left_out:
            return
        if self._bytes >= MAX_BUFFER_BYTES:
            self.dropped_lines += 1
            return
        self._add(encode_line(record, self._wall_clock()))

    def record_all(
        self,
        template: LineTemplate,
        answered: Iterable[Answered],
        now: float,
        usd_per_s: float = 0.0,
    ) -> None:
        """As `record` for each of these; `now` is what the clock of their times says.

        `usd_per_s` is what the slot of each cost while it lasted.
        """
        if self._writer is None:
            return
        offset_s = self._wall_clock() - now
        for each in answered:
            if self._sample < 1.0 and template.may_be_left_out and not self._is_sampled():
                continue
            if self._bytes >= MAX_BUFFER_BYTES:
                self.dropped_lines += 1
            else:
                self._add(template.line(each, offset_s, usd_per_s))

    def _is_sampled(self) -> bool:
        """Whether this one is: evenly spread."""
        self._due += self._sample
        if self._due < 1.0:
            return False
        self._due -= 1.0
        return True

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)

    async def run(self) -> None:
        """Write what was recorded every FLUSH_INTERVAL_S until cancelled; then the rest."""
        try:
            while True:
                await self._sleep(FLUSH_INTERVAL_S)
                await self._flush()
        finally:
            await self.close()

    async def close(self) -> None:
        """Write what is left, and close the file. Takes at most about two write time-outs."""
        await self._flush()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    async def _flush(self) -> None:
        self.catch_up()
        if self._writer is None or not self._lines:
            return
        lines, self._lines, self._bytes = self._lines, [], 0
        clock = asyncio.get_running_loop().time
        error, written = await asyncio.to_thread(self._writer.write, lines, clock)
        self.dropped_lines += len(lines) - written
        if error is not None and not self._failing:
            facts = told(EventKind.LOG, lost=self.dropped_lines)
            _log.error("access log: lines are being lost: %s", error, extra=facts)
        elif error is None and self._failing:
            _log.warning(
                "access log: written again; %d lines were lost so far", self.dropped_lines,
                extra=told(EventKind.LOG, lost=self.dropped_lines),
            )  # fmt: skip
        self._failing = error is not None


def encode_line(record: AccessRecord, now: float) -> bytes:
    """One line of JSON, newline included; `now` is seconds since 1970. Accepts any text."""
    second = int(now)
    stamp = b'{"ts":"%b.%03dZ",' % (_second_text(second), (now - second) * 1000)
    return stamp + _encode(record)[1:] + b"\n"


def _encode(record: AccessRecord) -> bytes:
    try:
        return msgspec.json.encode(_cut(record))
    except UnicodeEncodeError:  # bytes of a header that are not UTF-8
        return msgspec.json.encode(_cut(_printable(record)))


@lru_cache(maxsize=2)  # formatting a date takes longer than encoding the line
def _second_text(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _cut(record: AccessRecord) -> AccessRecord:
    if (
        len(record.request_id) <= MAX_TEXT_LENGTH
        and len(record.model) <= MAX_TEXT_LENGTH
        and (record.version is None or len(record.version) <= MAX_TEXT_LENGTH)
        and (record.tenant is None or len(record.tenant) <= MAX_TEXT_LENGTH)
        and (record.cause is None or len(record.cause) <= MAX_TEXT_LENGTH)
    ):
        return record
    texts = {name: getattr(record, name) for name in _CLIENT_TEXT}
    cut = {name: text and text[:MAX_TEXT_LENGTH] for name, text in texts.items()}
    return replace(record, **cut)


def _printable(record: AccessRecord) -> AccessRecord:
    texts = {name: getattr(record, name) for name in _CLIENT_TEXT}
    return replace(
        record,
        **{
            name: text.encode("utf-8", "backslashreplace").decode("utf-8")
            for name, text in texts.items()
            if text is not None
        },
    )
