"""W3C Trace Context: which trace a request belongs to, by the `traceparent` that came with it.

https://www.w3.org/TR/trace-context/. A value that breaks its grammar is as none.
"""

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED = 0x01


class TraceParent(NamedTuple):
    """The trace that a caller is part of, and the span in it that calls."""

    trace_id: str
    parent_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the caller may have recorded its part."""
        return bool(self.flags & _SAMPLED)


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
