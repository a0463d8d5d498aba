"""A snapshot of the metrics as Prometheus reads it, made chunk by chunk.

What the lines of a family look like is taken from prometheus_client, in whatever format was asked
for; only the filling in is done here, because it takes prometheus_client half a second where there
are a thousand models.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from router.telemetry.exposition import (
    BOUNDS,
    Buckets,
    Labels,
    Snapshot,
    family_metric,
    info_metric,
)
from router.telemetry.families import FAMILIES, Family, Kind

_Encoder = Callable[[Collector], bytes]
_END = b"# EOF\n"
_LINES_PER_CHUNK = 100
"""A chunk takes a fraction of a millisecond, and has some ten kilobytes."""
_number: Callable[[float], str] = floatToGoString
_MARK = "\x00{}\x00"
T = TypeVar("T")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class TextFormat:
    """The best format that a scraper accepts, and its content type."""

    def __init__(self, accept_header: str) -> None:
        try:
            self._encoder, self.content_type = choose_encoder(accept_header)
        except (TypeError, ValueError):  # a version that is not one
            self._encoder, self.content_type = choose_encoder("")

    def chunks(self, snapshot: Snapshot, build: Mapping[str, str]) -> Iterator[bytes]:
        """The text, equal to what prometheus_client makes of the same series.

        Uses the snapshot up, because freeing it all at the end would take milliseconds.
        """
        end = self._encoder(_Metrics([]))
        # Only OpenMetrics has exemplars.
        buckets = _exemplified_texts if end else _bucket_texts
        for family in FAMILIES:
            if family.kind is Kind.INFO:
                yield self._encoder(_Metrics([info_metric(family, build)])).removesuffix(_END)
                continue
            form = _form_of(family, self._encoder)
            yield form.head.encode()
            if family.kind is Kind.HISTOGRAM:
                yield from _chunks(form, snapshot.histograms.pop(family.name, ()), buckets)
            else:
                yield from _chunks(form, snapshot.values.pop(family.name, ()), _value_texts)
        if end:
            yield end


class _Metrics(Collector):
    """Some metrics, for an encoder."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


@dataclass(frozen=True, slots=True)
class _Form:
    """A family's text: its head, and the lines of one series for `str.format`.

    They are filled in with the escaped values of the labels, then with the numbers line by line.
    """

    head: str
    lines: str
    count: int


def _form_of(family: Family, encoder: _Encoder) -> _Form:
    marks = tuple(_MARK.format(place) for place in range(len(family.labels)))
    example = Buckets((0,) * len(BOUNDS), 0.0)
    metric = family_metric(family, [(marks, 0.0)], [(marks, example)])
    text = encoder(_Metrics([metric])).removesuffix(_END).decode()
    lines = text.splitlines(keepends=True)
    head = [line for line in lines if line.startswith("#")]
    series = [line.rpartition(" ")[0] for line in lines[len(head) :]]
    filled = "".join(
        f"{_with_fields(line, marks)} {{{place}}}\n"
        for place, line in enumerate(series, len(marks))
    )
    return _Form("".join(head), filled, len(series))


def _with_fields(line: str, marks: Sequence[str]) -> str:
    line = line.replace("{", "{{").replace("}", "}}")
    for place, mark in enumerate(marks):
        line = line.replace(mark, f"{{{place}}}")
    return line


def _chunks(
    form: _Form, series: Sequence[tuple[Labels, T]], texts: Callable[[T], Iterable[str]]
) -> Iterator[bytes]:
    fill, escape = form.lines.format, lru_cache(_escaped)
    at_a_time = max(1, _LINES_PER_CHUNK // form.count)
    for begin in range(0, len(series), at_a_time):
        yield "".join(
            fill(*map(escape, labels), *texts(value))
            for labels, value in series[begin : begin + at_a_time]
        ).encode()


def _escaped(label: str) -> str:
    return label.translate(_ESCAPES)


def _value_texts(value: float) -> Iterable[str]:
    return (_number(value),)


def _exemplified_texts(histogram: Buckets) -> Iterable[str]:
    texts = list(_bucket_texts(histogram))
    for place, (trace_id, seconds) in histogram.exemplars.items():
        texts[place] += f' # {{trace_id="{trace_id}"}} {_number(seconds)}'
    return texts


def _bucket_texts(histogram: Buckets) -> Iterable[str]:
    """Each bucket, the number of observations and their sum: most are as the one before."""
    texts, text, last = [], "", -1
    for below in histogram.below:
        if below != last:
            text, last = _number(float(below)), below
        texts.append(text)
    return (*texts, text, _number(histogram.total_s))
