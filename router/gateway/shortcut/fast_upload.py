"""A long request body on the fast path: passed on to a replica as it comes, by callbacks.

Decides who is slow, and what the client is told when the exchange ends before its body does. Only
the first part is kept, until the second is sent; after that nothing is repeated.
"""

import asyncio
from typing import Protocol as Interface

from router.backends.pool.endpoints import Pool
from router.dispatch.attempts import verdict_of
from router.dispatch.outcomes import outcome_of
from router.domain.decision import Reason
from router.domain.errors import (
    AttemptError,
    DeadlineExceededError,
    RouterError,
    UpstreamTimeoutError,
)
from router.gateway.body import WINDOW_BYTES, allowed_s, slow_body
from router.gateway.relay import error_bytes
from router.gateway.responses import error_answer
from router.gateway.shortcut.fast_attempt import CLOSE, OWN_LINES, Attempt, Client, Ground
from router.gateway.shortcut.fast_route import Route
from router.gateway.shortcut.fast_stream import AnswerStream
from router.gateway.shortcut.fast_way import Place
from router.gateway.shortcut.known_heads import Sorted
from router.telemetry.labels import AttemptResult, attempt_result
from router.upstream.connection import Connection
from router.upstream.response_head import ResponseHead

_FRESH_BYTES = 64 * 1024
"""The client's time is looked at anew when so much has come."""


class Sender(Client, Interface):
    """The client's connection, as an upload uses it."""

    def stop_reading(self) -> None:
        """Leave what the client sends in its socket."""
        ...

    def go_on_reading(self) -> None:
        """Take it again."""
        ...

    def cut_short(self) -> None:
        """Want no more of the body: the connection ends with the coming reply."""
        ...


class Upload(Attempt):
    """One long request at one replica; `of` is what an `Attempt` takes.

    `to_come` is what has not been passed on of its body.
    """

    __slots__ = (
        "_fresh_bytes", "_is_kept", "_pool", "_sender", "_stalled_s", "_stalled_since", "to_come",
    )  # fmt: skip

    def __init__(
        self, of: tuple[Ground, Client, Sorted, Route, Reason], sender: Sender, pool: Pool
    ) -> None:
        super().__init__(*of)
        self._sender = sender
        self._pool = pool
        self._is_kept = True
        self._fresh_bytes = 0
        self._stalled_since: float | None = None
        self._stalled_s = 0.0
        self.to_come = 0

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has come."""
        return not self.to_come

    @property
    def _body_timeout_s(self) -> float:
        return self._route.body_timeout_s

    @property
    def _client_until(self) -> float:
        """When the client's time for what is to come is over."""
        received = self._head.body_bytes - self.to_come
        allowed = allowed_s(self._body_timeout_s, received)
        return self._bounded(self._sent + self._stalled_s + allowed)

    @property
    def _held_bytes(self) -> int:
        return WINDOW_BYTES

    def begin(self, place: Place, body: bytes, request_id: bytes, now: float) -> None:
        """As for any attempt; `body` is the first part."""
        self.to_come = self._head.body_bytes - len(body)
        super().begin(place, body, request_id, now)

    def _wait_for_connection(self) -> None:
        super()._wait_for_connection()
        self._sender.stop_reading()

    def on_connected(self, connection: Connection) -> None:
        """Send the first part, which has waited for this, and take the others."""
        self._sender.go_on_reading()
        super().on_connected(connection)

    def _send(self, connection: Connection, body: bytes) -> None:
        """Send the head and the first part; `more` sends the others."""
        self._connection, self._is_connected = connection, True
        head, body = self._place.message(self._head, self._request_id, body)
        self._sent = self._ground.clock()
        connection.start(head, body, self, self._client_until, to_come=self.to_come)
        self._look_at_pace()

    def more(self, part: bytes) -> None:
        """Pass on what came of the body: at most `to_come` bytes."""
        self._is_kept = False
        self.to_come -= len(part)
        self._fresh_bytes += len(part)
        if not self._is_connected:  # had been read before we stopped reading
            self._body += part
            return
        self._connection.send_part(part)
        self._look_at_pace()

    def _look_at_pace(self) -> None:
        """Decide who is waited for from now on, and for how long."""
        connection, now = self._connection, self._ground.clock()
        writable = connection.writable()
        if writable is not None:
            self._stalled_since = now
            self._sender.stop_reading()
            writable.add_done_callback(self._on_writable)
            connection.set_deadline(self._bounded(now + self._place.timeout_s - self._stalled_s))
        elif not self.to_come:
            self._waited_s = now - self._sent - self._stalled_s
            connection.set_deadline(self._bounded(now + self._place.timeout_s - self._stalled_s))
        elif self._fresh_bytes >= _FRESH_BYTES:
            self._fresh_bytes = 0
            connection.set_deadline(self._client_until)

    def _on_writable(self, _: "asyncio.Future[None]") -> None:
        if self._stalled_since is None or not self._connection.is_busy:
            return
        self._stalled_s += self._ground.clock() - self._stalled_since
        self._stalled_since = None
        self._fresh_bytes = _FRESH_BYTES  # the client's time goes on
        self._sender.go_on_reading()
        self._look_at_pace()

    # -- what the upstream connection reports ---------------------------------------------------

    def on_done(self, error: AttemptError | None) -> None:
        """As for any attempt, but a client that was too slow is told so."""
        if error is not None and self._is_late and not self._is_kept:
            late = DeadlineExceededError("the deadline passed while the body was being sent")
            self._fail(late, AttemptResult.CANCELLED)
        elif isinstance(error, UpstreamTimeoutError) and self._waits_for_client:
            self._fail(slow_body(self._body_timeout_s), AttemptResult.CANCELLED)
        else:
            super().on_done(error)

    @property
    def _waits_for_client(self) -> bool:
        return self.to_come > 0 and self._stalled_since is None and self._stream is None

    # -- ways out -------------------------------------------------------------------------------

    def _reply(self, response: ResponseHead, body: bytes) -> None:
        self._leave_body()
        super()._reply(response, body)

    def _end_stream(self, stream: AnswerStream, error: AttemptError | None) -> None:
        self._leave_body()
        super()._end_stream(stream, error)

    def _go_on_after(self, error: AttemptError) -> None:
        if self._is_kept:
            self._sender.go_on_reading()
            super()._go_on_after(error)
        else:
            self._fail(error, attempt_result(error))

    def _leave_body(self) -> None:
        self._sender.go_on_reading()
        if self.to_come:
            self._sender.cut_short()

    def _fail(self, error: RouterError, result: AttemptResult) -> None:
        """Tell the client: what was passed on of the body is gone, so there is no other attempt."""
        self._leave_body()
        done = self._ground.clock()
        total_s, upstream_s = done - self._started, done - self._sent
        self._settle(verdict_of(result), result, done)
        answer = error_answer(error, self._route.alike.request.protocol)
        closing = CLOSE if self._client.is_closing else b""
        router_s = max(0.0, total_s - upstream_s)
        timing = OWN_LINES % (closing, self._request_id, router_s * 1e3, upstream_s * 1e3)
        self._client.reply(error_bytes(answer, self._place.way.reply_lines(self._reason) + timing))
        outcome = outcome_of(error)
        self._count(outcome, total_s, upstream_s)
        self._log(answer.status, outcome, (total_s, upstream_s), result)

    def _leave(self) -> None:
        super()._leave()
        self._pool.upload_left(self)
