"""The process's own log: lines on stderr, for people or as JSON.

Decides how a line looks; never what is logged.
"""

import logging
import sys
import time

import msgspec

from router.domain.events import Told
from router.telemetry.repeats import RepeatLimit

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class _PlainFormatter(logging.Formatter):
    """`time level logger message`, times in UTC; one line each, whatever the message contains."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return super().formatMessage(record).translate(_CONTROL)


class _JsonFormatter(_PlainFormatter):
    """One JSON object a line; events with their kind, model and numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """As JSON, in printable ASCII but for what is beyond ASCII."""
        line: dict[str, object] = {
            "ts": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if isinstance(event, Told):
            line |= {"event": event.kind, "model": event.model, "facts": event.facts}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line).decode()
        except UnicodeEncodeError:  # text of a client's that is not UTF-8
            line["message"] = record.getMessage().encode("utf-8", "backslashreplace").decode()
            return msgspec.json.encode(line).decode()


def configure_logging(level: str, form: str = "text") -> None:
    """Send the process's own log lines of `level` and above to stderr, as text or as JSON.

    Replaces what was configured before. Raises ValueError for a level that does not exist.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepeatLimit())
    is_json = form == "json"
    made = _JsonFormatter if is_json else _PlainFormatter
    handler.setFormatter(made("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    handler.setLevel(level.upper())  # events are collected from INFO on, whatever is written
