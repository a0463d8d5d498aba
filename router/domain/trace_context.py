"""W3C Trace Context: which trace a request belongs to, and what an attempt says of it upstream.

https://www.w3.org/TR/trace-context/. A value that breaks its grammar is as none. Who records
nothing passes on what came, as it came; who records spans says of each attempt that its own span is
the parent (section 3.4). `tracestate` goes on with the trace it belongs to, and ends with it.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_COMMON = re.compile(rb"[Tt]raceparent: 00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]\r\n")
"""A line as nearly all write it, with the flags that this version defines, or level 2."""
SAMPLED = 0x01
_KNOWN_FLAGS = 0x03
"""Sampled, and random (level 2): what a version that is to come means by others is not known."""
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"


class TraceParent(NamedTuple):
    """The trace that a caller is part of, and the span in it that calls."""

    trace_id: str
    parent_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the caller may have recorded its part."""
        return bool(self.flags & SAMPLED)

    @property
    def text(self) -> str:
        """The value of the header, in this version."""
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags & _KNOWN_FLAGS:02x}"


def read_traceparent(value: str) -> TraceParent | None:
    """What a `traceparent` says; None if it is none that may be used.

    Of a version that is to come, what it has in common with this one counts; this one has no more.
    """
    found = _TRACEPARENT.fullmatch(value.strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, rest = found.groups()
    if version == "00" and rest is not None:
        return None
    return TraceParent(trace_id, parent_id, int(flags, 16))


def trace_id_of(value: str) -> str | None:
    """The id of the trace, None if it is of none."""
    parent = read_traceparent(value)
    return None if parent is None else parent.trace_id


def read_lines(lines: bytes) -> TraceParent | None:
    """What the lines of a head that are about the trace say, `traceparent` first; None as above."""
    name, _, value = lines.partition(b"\r\n")[0].partition(b":")
    return read_traceparent(value.decode("latin-1")) if name.lower() == b"traceparent" else None


def continued(lines: bytes, span_id: int) -> bytes | None:
    """Such lines as the span with that id passes them on; None if they begin in no common form.

    Quick, for it is done with nearly every request; what it leaves, `read_lines` and `told` do.
    """
    if _COMMON.match(lines) is None:
        return None
    return b"%b%016x%b" % (lines[:49], span_id, lines[65:])


def told(parent: TraceParent) -> bytes:
    """The line with that value."""
    return b"traceparent: %b\r\n" % parent.text.encode("ascii")


def begun(trace_id: int, span_id: int, flags: int) -> bytes:
    """The line of a trace that begins with that span."""
    return b"traceparent: 00-%032x-%016x-%02x\r\n" % (trace_id, span_id, flags)


def is_sampled(lines: bytes) -> bool:
    """Whether lines that one of these three has made say that the trace is recorded."""
    return bool(lines[67] & SAMPLED)  # an ASCII digit has the lowest bit of its number


def passed_on(headers: Mapping[str, str], parent: TraceParent, *, is_new: bool) -> dict[str, str]:
    """The headers (lower case) of a request with that parent; `is_new`: the trace begins here."""
    named = {**headers, TRACEPARENT: parent.text}
    if is_new:
        named.pop(TRACESTATE, None)
    return named
