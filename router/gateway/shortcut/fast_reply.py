"""The beginning of a reply: what the next one from the same place most likely has too."""

from aiohttp.helpers import rfc822_formatted_time

from router.domain.decision import Reason
from router.gateway.relay import SERVER, is_relayed
from router.gateway.shortcut.fast_way import ReplyStart, Way, remember
from router.upstream.response_head import ResponseHead

_DATE_FRESH_S = 0.5


class ReplyStarts:
    """Makes the beginnings of replies: status line and headers, as one piece of bytes.

    Endpoints answer with the same head again and again, so a beginning is kept and used anew while
    head, reason and the date in it are the same: building one costs as much as all else of a reply.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, tuple[ResponseHead, bytes, bool]] = {}
        self._date_line = b""
        self._date_until = 0.0

    def get(self, head: ResponseHead, way: Way, reason: Reason, now: float) -> ReplyStart:
        """The beginning of a reply on `way`; equal heads of one upstream are one object."""
        found = way.recent
        if (
            found is not None
            and found.head is head
            and found.reason is reason
            and now < found.fresh_until
        ):
            return found
        lines = self._block(head, now) + way.reply_lines(reason)
        answers = way.answers(reason, head.status)
        way.recent = ReplyStart(head, reason, lines, answers, self._date_until)
        return way.recent

    def _block(self, head: ResponseHead, now: float) -> bytes:
        """Status line and the lines that depend on nothing else, with a date."""
        if now >= self._date_until:
            self._date_line = f"date: {rfc822_formatted_time()}\r\n".encode()
            self._date_until = now + _DATE_FRESH_S
        found = self._blocks.get(id(head))
        if found is not None and found[0] is head:
            _, block, has_date = found
        else:
            lines = [f"HTTP/1.1 {head.status} {head.reason}"]
            lines += [f"{name}: {value}" for name, value in head.headers if is_relayed(name)]
            text = "\r\n".join([*lines, "server: " + SERVER[1], ""])
            block = text.encode("utf-8", "surrogateescape")
            has_date = any(name.lower() == "date" for name, _ in head.headers)
            remember(self._blocks, id(head), (head, block, has_date))
        return block if has_date else block + self._date_line
