"""Sends kept traces to the collector, in the background: OTLP over HTTP, in batches, again if told.

A collector that is slow, hung or gone costs spans, which are counted, and nothing else: a request
never waits for it, and what waits for it is bounded by `tracer`. Which answers are tried again, and
when, is OTLP's (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response).
"""

import asyncio
import gzip
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.stop import stop_after_attempt, stop_after_delay
from tenacity.wait import wait_exponential_jitter

from router.domain.clock import Clock, Sleep
from router.domain.events import EventKind, told
from router.telemetry.labels import SpanResult
from router.telemetry.metrics import Metrics
from router.telemetry.tracer import EndedTrace, Tracer
from router.turns import in_turns

_log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""Time between batches that are not full."""
_GIVE_UP_AFTER_S = 30.0
"""Of one batch: later ones wait for it, and are dropped when there are too many."""
_MOST_TRIES = 8
_BACKOFF = wait_exponential_jitter(multiplier=0.5, max=5.0, jitter=0.5)
_MAX_PAUSE_S = 30.0
_LAST_WITHIN_S = 2.0
"""Time for what is left when the gateway ends."""
_MAX_ANSWER_BYTES = 64 * 1024
_AGAIN = frozenset({429, 502, 503, 504})
_QUICKLY = 1
"""Level of compression: spans are mostly the same names."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go, as whose, and how long one answer may take."""

    url: str
    headers: Mapping[str, str]
    service_name: str
    timeout_s: float


class _TryAgainError(Exception):
    """The collector could not take the spans, and may later; `pause_s` is what it asked for."""

    def __init__(self, why: str, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class _RefusedError(Exception):
    """The collector will not take these spans, however often they come."""


class SpanExporter:
    """The way of one gateway process's traces to the collector.

    `collector` is asked before each batch; None: what is held is dropped. `clock` is that of the
    traces' times.
    """

    def __init__(
        self,
        tracer: Tracer,
        metrics: Metrics,
        collector: Callable[[], Collector | None],
        identity: tuple[str, str],
        clocks: tuple[Clock, Clock],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._collector = collector
        self._version, self._instance = identity
        self._clock, self._wall_clock = clocks
        self._sleep = sleep
        self._is_failing = False

    async def run(self) -> None:
        """Send what is kept until cancelled; then what is left, for a short time."""
        try:
            while True:
                await self._tracer.has_some.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL_S):
                        await self._tracer.has_many.wait()
                await self._send_batch()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WITHIN_S):
                    while self._tracer.has_some.is_set():
                        await self._send_batch()

    async def _send_batch(self) -> None:
        traces, collector = self._tracer.take(), self._collector()
        number = sum(1 + len(ended.spans) for ended in traces)
        result, rejected = SpanResult.FAILED, 0
        try:
            if collector is not None:
                rejected = await self._sent(traces, collector)
                result = SpanResult.SENT
                self._say_well()
        except (_TryAgainError, _RefusedError) as error:
            self._say_failing(error)
        finally:  # also of a batch that was being sent when the gateway ended
            self._metrics.record_spans(result, number - rejected)
            if rejected:
                self._metrics.record_spans(SpanResult.REJECTED, rejected)

    async def _sent(self, traces: list[EndedTrace], collector: Collector) -> int:
        """Send a batch; how many of its spans were rejected. Raises _TryAgain- or _RefusedError."""
        # Needs the extra, and the settings have looked for it.
        from router.telemetry import otlp  # noqa: PLC0415

        sender = otlp.Sender(collector.service_name, self._version, self._instance)
        offset_s = self._wall_clock() - self._clock()
        message, _ = await in_turns(otlp.encoding(traces, sender, offset_s))
        body = await asyncio.to_thread(gzip.compress, message, _QUICKLY)
        answer: bytes = await self._retrying()(self._post, body, collector)
        rejected, why = otlp.rejected(answer)
        if rejected or why:
            _log.warning("tracing: the collector has rejected %d spans: %s", rejected, why[:200])
        return rejected

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_delay(_GIVE_UP_AFTER_S) | stop_after_attempt(_MOST_TRIES),
            wait=_pause_s,
            retry=retry_if_exception_type(_TryAgainError),
            reraise=True,
        )

    async def _post(self, body: bytes, collector: Collector) -> bytes:
        headers = {
            **collector.headers,
            "content-type": "application/x-protobuf",
            "content-encoding": "gzip",
            "user-agent": f"hybrid-router/{self._version}",
        }
        timeout = aiohttp.ClientTimeout(total=collector.timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                # A redirect would take the headers, and what is in them, to somebody else.
                session.post(
                    collector.url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = await response.content.read(_MAX_ANSWER_BYTES)
                if response.status in _AGAIN:
                    pause_s = _seconds(response.headers.get("retry-after", ""))
                    raise _TryAgainError(f"status {response.status}", pause_s)
                if response.status >= 300:
                    raise _RefusedError(f"status {response.status}")
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise _TryAgainError(f"it could not be reached: {why[:200]}") from error

    def _say_failing(self, error: Exception) -> None:
        if not self._is_failing:
            facts = told(EventKind.LOG, cause=str(error))
            _log.warning("tracing: spans are being lost, the collector: %s", error, extra=facts)
        self._is_failing = True

    def _say_well(self) -> None:
        if self._is_failing:
            _log.info("tracing: spans are sent again", extra=told(EventKind.LOG))
        self._is_failing = False


def _pause_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.pause_s if isinstance(error, _TryAgainError) else None
    return _BACKOFF(state) if asked_s is None else asked_s


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds, as far as it is waited for; a date is as none."""
    is_number = text.isascii() and text.isdigit() and len(text) < 6
    return min(float(text), _MAX_PAUSE_S) if is_number else None
