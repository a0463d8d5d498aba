"""A request of a model that hedges: an attempt like any other, until it has proved to be slow.

Most are answered before that, and cost a deadline on a wheel. One that is not, and for which there
is a second place, goes on with the director, its first attempt still running.
"""

from dataclasses import replace

from router.admission.hedging import Hedging
from router.dispatch.attempts import Running, Try
from router.gateway.shortcut.fast_attempt import Attempt, Carried
from router.upstream.connection import Connection
from router.upstream.response_head import ResponseHead


class Hedged(Attempt):
    """One request at one place, with an eye on the time."""

    __slots__ = ()

    @property
    def _hedging(self) -> Hedging:
        hedging = self._route.alike.model.hedging
        assert hedging is not None  # noqa: S101  see `Route.hedges`
        return hedging

    def _send(self, connection: Connection, body: bytes) -> None:
        super()._send(connection, body)
        self._disarm()  # the wait for the connection is over, another one begins
        delay_s = self._hedging.delay_s(self.backend, self._head.body_bytes)
        if delay_s is not None and not self._is_answered:
            self._wheel = self._ground.hedges
            self._tick = self._wheel.arm(self._sent + delay_s, self)

    def expire(self) -> None:
        """Slow, or without a connection for too long."""
        if not self._is_connected:
            super().expire()
            return
        self._tick = None
        if not self._is_answered:
            self._hedge()

    @property
    def _is_answered(self) -> bool:
        return self._response is not None or not self._connection.is_busy

    def _hedge(self) -> None:
        """Go on with a second attempt beside this one, if there is a place for it."""
        ground, route, head = self._ground, self._route, self._head
        ground.tally.fold()  # the budget has to know of all requests until now
        now = ground.clock()
        deadline = self._bounded(self._started + 1e9) if head.deadline_ms is not None else None
        alike, place = route.alike, self._place
        request = replace(alike.request, payload_bytes=head.body_bytes, deadline=deadline)
        lease = place.lease(self._started)
        first = Try(place.way.decision(self._reason), lease)
        second = ground.hedger.second(alike.model, self._hedging, request, first)
        if second is None:
            return
        self._leave()
        ground.metrics.record_decision(alike.model.name, self.backend, self._reason)
        record = self._record_so_far(now)
        record.upstream_s = 0.0  # counted from `started`, at the end
        if record.trace is not None:
            first.sent = self._in(record.trace)
        connection = self._connection
        upstream = ground.upstream.taken_over(connection)
        answer = lease.taken_over(request, upstream, self._sent)

        def cancel() -> None:
            upstream.close()
            connection.cancel()

        record.running = Running(alike.model, first, answer, cancel, self._sent, second)
        self._client.hand_over(Carried(self._request_id.decode("ascii"), self._started, record))

    # -- what is learned -------------------------------------------------------------------------

    def _reply(self, response: ResponseHead, body: bytes) -> None:
        self._observe()
        super()._reply(response, body)

    def _begin_stream(self, head: ResponseHead) -> None:
        self._observe()
        super()._begin_stream(head)

    def client_gone(self) -> None:
        """As for any attempt; it has taken at least that long."""
        if self._is_connected and self._stream is None:
            self._observe()
        super().client_gone()

    def _observe(self) -> None:
        took_s = self._ground.clock() - self._sent
        self._hedging.observe(self.backend, self._head.body_bytes, took_s)
