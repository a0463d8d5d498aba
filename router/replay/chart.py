"""A small time chart as inline SVG: areas, lines, marks, axes with round numbers.

Draws what it is given; knows nothing of routing. Colours are of Okabe and Ito's palette, and lines
differ by dashes too, for print and for colour-blind readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from router.replay.distributions import Floats

BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#666666"

_WIDTH, _HEIGHT = 960, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 150.0, 26.0, 28.0
_LABEL_GAP = 15
_TIME_STEPS_S = (
    60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """One value for each interval. `is_area` fills what lies between it and the area before."""

    name: str
    values: Floats
    colour: str
    dash: str = ""
    is_area: bool = False
    is_step: bool = False


def chart(series: Sequence[Series], step_s: float, label: str, description: str) -> str:
    """The SVG of some series over the same intervals of `step_s` seconds."""
    intervals = max((len(one.values) for one in series), default=0)
    highest = max((float(one.values.max(initial=0.0)) for one in series), default=0.0)
    scale = _Scale(max(intervals, 1), _round_up(highest))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(description)}">',
        *_grid(scale, step_s, label),
    ]
    base: Floats | None = None
    for one in series:
        parts.append(_area(scale, one, base) if one.is_area else _line(scale, one))
        base = one.values if one.is_area else base
    return "\n".join([*parts, *_labels(scale, series), "</svg>"])


@dataclass(frozen=True, slots=True)
class _Scale:
    intervals: int
    top: float

    def x(self, interval: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * interval / self.intervals

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self.top


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value)


def _grid(scale: _Scale, step_s: float, label: str) -> list[str]:
    right = _WIDTH - _RIGHT
    parts = [f'<text class="axis" x="4" y="12">{escape(label)}</text>']
    for quarter in range(5):
        value = scale.top * quarter / 4
        y = scale.y(value)
        parts += [
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="tick end" x="{_LEFT - 6}" y="{y + 4:.1f}">{value:.4g}</text>',
        ]
    span_s = scale.intervals * step_s
    tick_s = next((s for s in _TIME_STEPS_S if span_s / s <= 8), ceil(span_s / 8))
    for tick in range(int(span_s / tick_s) + 1):
        x = scale.x(tick * tick_s / step_s)
        parts.append(
            f'<text class="tick mid" x="{x:.1f}" y="{_HEIGHT - 8}">{_clock(tick * tick_s)}</text>'
        )
    return parts


def _clock(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def _points(scale: _Scale, one: Series) -> list[tuple[float, float]]:
    if not one.is_step:
        return [(scale.x(i + 0.5), scale.y(value)) for i, value in enumerate(one.values)]
    return [
        (scale.x(i + side), scale.y(value)) for i, value in enumerate(one.values) for side in (0, 1)
    ]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _line(scale: _Scale, one: Series) -> str:
    dash = f' stroke-dasharray="{one.dash}"' if one.dash else ""
    points = _path(_points(scale, one))
    return f'<polyline class="line" stroke="{one.colour}"{dash} points="{points}"/>'


def _area(scale: _Scale, one: Series, base: Floats | None) -> str:
    upper = _points(scale, one)
    floor_ = Series("", one.values * 0.0 if base is None else base, "", is_step=one.is_step)
    points = _path([*upper, *reversed(_points(scale, floor_))])
    return f'<polygon class="area" fill="{one.colour}" points="{points}"/>'


def _labels(scale: _Scale, series: Sequence[Series]) -> list[str]:
    """A name at the right end of each series, moved apart where they would touch."""
    ends = sorted(
        (scale.y(float(one.values[-1]) if len(one.values) else 0.0), number)
        for number, one in enumerate(series)
    )
    parts: list[str] = []
    lowest = _TOP + 4.0
    for wanted, number in ends:
        rest = _LABEL_GAP * (len(ends) - 1 - len(parts))
        y = max(lowest, min(wanted + 4, _HEIGHT - _BOTTOM - rest))
        lowest = y + _LABEL_GAP
        one = series[number]
        parts.append(_label(one, _WIDTH - _RIGHT + 8, y))
    return parts


def _label(one: Series, x: float, y: float) -> str:
    dash = f' stroke-dasharray="{one.dash}"' if one.dash else ""
    if one.is_area:
        box = f'x="{x}" y="{y - 9:.1f}" width="16" height="9"'
        mark = f'<rect class="area" {box} fill="{one.colour}"/>'
    else:
        line = f'x1="{x}" x2="{x + 16}" y1="{y - 4:.1f}" y2="{y - 4:.1f}"'
        mark = f'<line class="line" {line} stroke="{one.colour}"{dash}/>'
    return f'{mark}<text class="tick" x="{x + 21}" y="{y:.1f}">{escape(one.name)}</text>'
