"""The results as a picture: what each policy's bill is, in optima, on a line for each case.

An SVG without scripts, on a logarithmic axis. Marks differ by shape as well as by colour.
"""

from collections.abc import Sequence
from html import escape
from math import log

from tests.results.summary import Measured

_STYLES = {
    "this router": ("#d55e00", "circle"),
    "libra": ("#0072b2", "square"),
    "mark": ("#009e73", "diamond"),
    "hpa_overflow": ("#cc79a7", "triangle"),
    "static_split": ("#666666", "cross"),
    "always_serverless": ("#000000", "bar"),
}
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 960, 220, 60, 64, 20
_LOW, _HIGH = 0.98, 6.0
_TICKS = (1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0)


def svg(results: Sequence[Measured]) -> str:
    """The picture; the same results give the same bytes."""
    height = _TOP + _ROW * len(results) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<style>text { font: 12px sans-serif }</style>",
        "<title>Bills of six policies, in optima, for each case</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *_axis(height),
        *_legend(),
    ]
    for number, measured in enumerate(results):
        y = _TOP + _ROW * (number + 0.5)
        name = escape(measured.case.name)
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 4:g}" text-anchor="end">{name}</text>')
        parts += [
            _mark(_x(ratio), y, *_STYLES[policy]) for policy, ratio in reversed(_ratios(measured))
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ratios(measured: Measured) -> list[tuple[str, float]]:
    found = [("this router", measured.mean("optimum_ratio"))]
    for policy in _STYLES:
        figures = measured.baselines.get(policy)
        if figures is not None and figures["optimum_ratio"] is not None:
            found.append((policy, figures["optimum_ratio"]))
    return found


def _x(ratio: float) -> float:
    place = log(min(max(ratio, _LOW), _HIGH) / _LOW) / log(_HIGH / _LOW)
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * place


def _axis(height: int) -> list[str]:
    lines = []
    for tick in _TICKS:
        x, told = _x(tick), f"{tick:g}" if tick < _HIGH else f"{tick:g} or more"
        lines.append(
            f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{height - 20}" stroke="#dddddd"/>'
            f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{told}</text>'
        )
    title = "Bill over the optimum in hindsight (less is better)"
    return [f'<text x="{_LEFT}" y="20">{title}</text>', *lines]


def _legend() -> list[str]:
    parts = []
    for number, (policy, style) in enumerate(_STYLES.items()):
        x = _LEFT + 112 * number
        parts.append(_mark(x + 6, 42, *style))
        parts.append(f'<text x="{x + 16}" y="46">{policy.replace("_", " ")}</text>')
    return parts


def _mark(x: float, y: float, colour: str, shape: str) -> str:
    at = f'transform="translate({x:.1f} {y:g})"'
    if shape == "circle":
        return f'<circle {at} r="5" fill="{colour}"/>'
    path = {
        "square": "M-4-4h8v8h-8z",
        "diamond": "M0-5L5 0L0 5L-5 0z",
        "triangle": "M0-5L5 4H-5z",
        "cross": "M-4-4L4 4M-4 4L4-4",
        "bar": "M0-6V6",
    }[shape]
    fill = "none" if shape in {"cross", "bar"} else colour
    return f'<path {at} d="{path}" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
