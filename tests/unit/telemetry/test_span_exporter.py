"""What becomes of a batch, by what the collector answers: OTLP's own rules."""

import asyncio
from random import Random

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from prometheus_client import CollectorRegistry

from router.telemetry.metrics import Metrics
from router.telemetry.span_exporter import Collector, SpanExporter
from router.telemetry.tracer import Keeping, Tracer
from tests.fakes.collector import collecting
from tests.unit.telemetry.test_tracer import RECORD

HEADERS = {"x-key": "s3"}


class Exporter:
    """One whose pauses pass at once, and are noted."""

    def __init__(self, url: str) -> None:
        self.metrics = Metrics(CollectorRegistry(), "0")
        self.tracer = Tracer(self.metrics, Random(1))
        self.tracer.configure(Keeping(1.0, frozenset(), {}))
        self.slept: list[float] = []
        collector = Collector(url, HEADERS, "gateway", 0.5)
        self.exporter = SpanExporter(
            self.tracer, self.metrics, lambda: collector, ("1", "me"),
            (lambda: 5.0, lambda: 1.7e9), self._sleep,
        )  # fmt: skip

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def keep(self, number: int = 1) -> None:
        for _ in range(number):
            trace = self.tracer.begin("")
            assert trace is not None
            self.tracer.ended(trace, RECORD, 1.0, 2.0)

    async def counted(self) -> dict[str, float]:
        """The spans by result, once the batch has come to something."""
        running = asyncio.create_task(self.exporter.run())
        try:
            async with asyncio.timeout(15):
                while not (found := self._spans()):
                    await asyncio.sleep(0.005)
            return found
        finally:
            running.cancel()
            await asyncio.wait([running])

    def _spans(self) -> dict[str, float]:
        lines = self.metrics.expose("")[0].decode().splitlines()
        start = 'router_spans_total{result="'
        pairs = (line.removeprefix(start).split('"} ') for line in lines if line.startswith(start))
        return {result: float(number) for result, number in pairs}


def said(*statuses: int, **headers: str):
    left = list(statuses)

    async def answer() -> web.Response:
        status = left.pop(0) if left else 200
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, headers=named if status != 200 else None)

    return answer


@pytest.mark.parametrize(
    ("statuses", "headers", "result", "asked", "pauses"),
    [
        ([200], {}, "sent", 1, []),
        ([503, 502, 200], {}, "sent", 3, [(0.5, 1.0), (1.0, 1.5)]),
        ([504, 200], {}, "sent", 2, [(0.5, 1.0)]),
        ([429, 200], {"retry_after": "7"}, "sent", 2, [(7, 7)]),
        ([429, 200], {"retry_after": "100000"}, "sent", 2, [(0.5, 1.0)]),
        ([429, 200], {"retry_after": "3600"}, "sent", 2, [(30, 30)]),
        ([400], {}, "failed", 1, []),
        ([500], {}, "failed", 1, []),
        ([401], {}, "failed", 1, []),
        ([307], {"location": "http://127.0.0.1:1/"}, "failed", 1, []),
        ([503] * 20, {}, "failed", 8, None),
    ],
)
async def test_an_answer_is_taken_as_otlp_says(statuses, headers, result, asked, pauses):
    async with collecting(said(*statuses, **headers)) as collector:
        exporter = Exporter(collector.url)
        exporter.keep(2)
        assert await exporter.counted() == {result: 2}
    assert collector.asked == asked
    if pauses is not None:
        assert len(exporter.slept) == len(pauses)
        for slept, (least, most) in zip(exporter.slept, pauses, strict=True):
            assert least <= slept <= most


async def test_the_spans_are_the_gateways():
    async with collecting() as collector:
        exporter = Exporter(collector.url)
        exporter.keep()
        await exporter.counted()
    (span,) = collector.spans
    assert collector.resource == {
        "service.name": "gateway", "service.version": "1", "service.instance.id": "me",
    }  # fmt: skip
    assert collector.headers[0]["x-key"] == "s3"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    # The clock of the span's times says 5 now, and it is 1.7e9 seconds since 1970.
    assert span.start_time_unix_nano == 1_699_999_996 * 10**9
    assert span.end_time_unix_nano == 1_699_999_997 * 10**9


async def test_rejected_spans_are_counted():
    async def rejects() -> web.Response:
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 1
        answer.partial_success.error_message = "too old"
        return web.Response(body=answer.SerializeToString())

    async with collecting(rejects) as collector:
        exporter = Exporter(collector.url)
        exporter.keep(3)
        assert await exporter.counted() == {"sent": 2, "rejected": 1}


async def test_a_collector_that_is_gone_costs_the_spans_alone(caplog):
    async with collecting() as collector:
        url = collector.url
    exporter = Exporter(url)
    exporter.keep()
    assert await exporter.counted() == {"failed": 1}
    assert sum("spans are being lost" in line for line in caplog.messages) == 1


async def test_one_that_hangs_has_its_time_and_no_more():
    async def hangs() -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with collecting(hangs) as collector:
        exporter = Exporter(collector.url)
        exporter.keep()
        assert await exporter.counted() == {"failed": 1}
        assert collector.asked == 8
