"""What the gateway's event loop has of the quality of its models: samples, labels, a last look.

Samples and labels are handed to one thread, in order and bounded; nothing here waits, and no
request waits for it. What does not fit is dropped and counted.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from random import Random
from typing import Annotated, TypeVar

import msgspec

from router.domain.clock import Clock
from router.quality.monitor import Monitor, Said, Taken, Verdict
from router.quality.pending import Kept, Pending
from router.quality.samples import QualityParams, Sample
from router.quality.subject import Opinion
from router.quality.summary import Summary, summary_of
from router.quality.tap import Tap
from router.quality.tensors import UnreadableAnswerError

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING = 64
"""Samples that wait to be read."""
MAX_WAITING_BYTES = 16 << 20
MAX_WAITING_LABELS = 20_000
MAX_ORPHANS = 2000
MAX_ORPHAN_BYTES = 4096


class SampleResult(StrEnum):
    """What became of a request that was to be sampled."""

    READ = "read"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    OVER_RATE = "over_rate"
    FAILED = "failed"


class LabelResult(StrEnum):
    """What became of a label."""

    COUNTED = "counted"
    FORWARDED = "forwarded"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    BUSY = "busy"


class Orphan(msgspec.Struct, array_like=True):
    """A label whose answer is not here; numbers grow."""

    number: int
    tenant: Annotated[str, msgspec.Meta(max_length=200)] | None
    entry: Annotated[str, msgspec.Meta(max_length=4096)]


class Quality:
    """The quality of one gateway's models.

    `orphans` are labels for other gateways; None where there are none. `on_verdict` is told, on
    the event loop, about a canary that is worse. `summary` is what the thread knew after the last
    sample or label.
    """

    def __init__(self, rng: Random, wall_clock: Clock) -> None:
        self._rng = rng
        self._wall_clock = wall_clock
        self._monitor = Monitor(rng)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quality")
        self._params: dict[str, QualityParams] = {}
        self._taps: dict[str, Tap] = {}
        self._waiting = 0
        self._waiting_bytes = 0
        self._waiting_labels = 0
        self.pending = Pending()
        self.samples: Counter[tuple[str, SampleResult]] = Counter()
        self.labels: Counter[tuple[str, LabelResult]] = Counter()
        self.on_verdict: Callable[[Verdict], None] = lambda _: None
        self.on_label: Callable[[Kept], None] = lambda _: None
        self.orphans: deque[Orphan] | None = None
        self._orphans = 0
        self.summary: Mapping[str, Summary] = {}

    def tap(self, model: str, params: QualityParams | None) -> Tap | None:
        """The tap of a model that is configured so; None if it is not watched."""
        if params is None:
            self._taps.pop(model, None)
            return None
        found = self._taps.setdefault(model, Tap(params.share, params.max_per_s, self._rng))
        found.configure(params.share, params.max_per_s)
        return found

    def configure(self, params: Mapping[str, QualityParams]) -> None:
        """Watch these models so."""
        if not params and not self._params:
            return  # nothing needs a thread
        self._params = dict(params)
        self._taps = {model: tap for model, tap in self._taps.items() if model in params}
        self.pending.retain(list(params))
        for counts in (self.samples, self.labels):
            for key in [key for key in counts if key[0] and key[0] not in params]:
                del counts[key]
        self._thread.submit(_reported, self._monitor.configure, dict(params))

    @property
    def watches(self) -> bool:
        """Whether any model is watched."""
        return bool(self._params)

    def params(self, model: str) -> QualityParams | None:
        """How a model is watched; None if it is not."""
        return self._params.get(model)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._wall_clock()

    # -- samples ---------------------------------------------------------------------------------

    def has_room(self, model: str, size: int) -> bool:
        """Whether a sample of that size may be kept; counts it if not."""
        params = self._params.get(model)
        if params is None:
            return False
        if size > params.max_bytes:
            self.samples[model, SampleResult.TOO_LARGE] += 1
            return False
        if self._waiting >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            self.samples[model, SampleResult.BUSY] += 1
            return False
        return True

    def draws(self, tap: Tap | None, model: str, now: float) -> bool:
        """Whether a request at `now` is sampled; counts it if only the rate is against it."""
        if tap is None or not tap.takes():
            return False
        if not tap.has_rate(now):
            self.samples[model, SampleResult.OVER_RATE] += 1
            return False
        return True

    def offer(self, sample: Sample) -> None:
        """Have a sample read, soon."""
        if not self.has_room(sample.origin.model, sample.size):
            return
        self._waiting += 1
        self._waiting_bytes += sample.size
        loop = asyncio.get_running_loop()
        future = self._thread.submit(self._monitor.take, sample)
        future.add_done_callback(lambda done: _on_loop(loop, self._read, sample, done))

    def _read(self, sample: Sample, done: "Future[Taken | None]") -> None:
        self._waiting -= 1
        self._waiting_bytes -= sample.size
        model = sample.origin.model
        if done.cancelled():
            return
        error = done.exception()
        taken = done.result() if error is None else None
        result = SampleResult.READ
        if isinstance(error, UnreadableAnswerError):
            result = SampleResult.UNREADABLE
        elif error is not None:
            result = SampleResult.FAILED
            _log.error("a sample of %s could not be read", model, exc_info=error)
        params = self._params.get(model)
        if params is None:
            return
        self.samples[model, result] += 1
        if taken is None:
            return
        ids = list(dict.fromkeys(each for each in (sample.request_id, taken.answer_id) if each))
        until = sample.at + params.ttl_s
        kept = Kept(ids, taken.origin, taken.predictions, sample.at, until)
        self.pending.keep(kept, params.max_pending)
        if taken.verdict is not None:
            self.on_verdict(taken.verdict)

    # -- labels ----------------------------------------------------------------------------------

    def label(self, kept: Kept, opinions: list[Opinion]) -> bool:
        """Count opinions about an answer, row by row; False if too many wait already."""
        if self._waiting_labels + len(opinions) > MAX_WAITING_LABELS:
            return False
        rows = kept.predictions
        said = [
            Said(kept.origin, rows[at] if at < len(rows) else None, opinion, kept.at)
            for at, opinion in enumerate(opinions)
        ]
        self._waiting_labels += len(said)
        loop = asyncio.get_running_loop()
        future = self._thread.submit(_opinions, self._monitor, said)
        future.add_done_callback(lambda done: _on_loop(loop, self._labelled, len(said), done))
        self.on_label(kept)
        return True

    def _labelled(self, number: int, done: "Future[list[Verdict]]") -> None:
        self._waiting_labels -= number
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            _log.error("labels could not be counted", exc_info=error)
            return
        for verdict in done.result():
            self.on_verdict(verdict)

    def orphaned(self, tenant: str | None, entry: bytes) -> bool:
        """Keep a label of an answer that another gateway may know; False where there is none."""
        if self.orphans is None:
            return False
        self._orphans += 1
        self.orphans.append(Orphan(self._orphans, tenant, entry.decode()))
        return True

    # -- looking ---------------------------------------------------------------------------------

    async def ask(self, question: Callable[[Monitor], T]) -> T:
        """What the thread knows, after all that was handed to it before."""
        return await asyncio.wrap_future(self._thread.submit(question, self._monitor))

    async def run(self) -> None:
        """Keep `summary` current until cancelled."""
        while True:
            if self._params:
                self.summary = await self.ask(summary_of)
            await asyncio.sleep(_SUMMARY_EVERY_S)

    async def close(self) -> None:
        """End the thread, once it has ended what it does now."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._monitor.close)


def unwatched() -> Quality:
    """The quality of a gateway that watches no model."""
    return Quality(Random(0), lambda: 0.0)  # noqa: S311  draws samples, guards nothing


_SUMMARY_EVERY_S = 2.0


def _opinions(monitor: Monitor, said: list[Said]) -> list[Verdict]:
    verdicts = (monitor.opinion(each) for each in said)
    return [verdict for verdict in verdicts if verdict is not None]


def _reported(configure: Callable[..., None], params: Mapping[str, QualityParams]) -> None:
    try:
        configure(params)
    except Exception:  # noqa: BLE001  root of a job of the thread: nobody looks at what it raises
        _log.exception("the quality of models could not be configured")


def _on_loop(
    loop: asyncio.AbstractEventLoop, then: Callable[..., None], *arguments: object
) -> None:
    """Go on with it on the event loop, if that is still there."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(then, *arguments)
