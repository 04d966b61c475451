"""Small SVG pictures for the pages: text stays text, colors follow the page, nothing is loaded from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle

SIZE = 300  # the square that a curve is drawn in, in SVG units
LEFT, TOP, RIGHT, BOTTOM = 44, 10, 12, 40
# Okabe and Ito 2008: distinguishable with every kind of color vision; the most important first
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class PlotLine:
    """A named line through points.

    `spread` draws a vertical bar at each point unless it is NaN; `line` joins the points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[tuple[float, float]] = ()
    marks: bool = False
    line: bool = True


@dataclass(frozen=True)
class Axis:
    """One axis of a plot: label, ends, and whether it is logarithmic."""

    label: str
    low: float
    high: float
    log: bool = False

    @staticmethod
    def around(label: str, values: Iterable[float], *, log: bool = False) -> Axis:
        """An axis that holds these values, with some room at both ends."""
        values = list(values)
        low, high = min(values), max(values)
        if log:
            room = max((high / low) ** 0.06, 1.02)
            return Axis(label, low / room, high * room, log=True)
        room = 0.06 * (high - low) or 0.02 * (abs(high) or 1.0)
        return Axis(label, low - room, high + room)

    def position(self, start: float, stop: float) -> Callable[[float], float]:
        """Maps a value to its position between `start` and `stop`."""
        if not self.log:
            return _scale(self.low, self.high, start, stop)
        linear = _scale(math.log(self.low), math.log(self.high), start, stop)
        return lambda value: linear(math.log(value))

    def ticks(self) -> list[tuple[float, str]]:
        """Tick values with their labels."""
        if self.log:
            return _log_ticks(self.low, self.high)
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(size for size in (1, 2, 2.5, 5, 10) if (self.high - self.low) / (size * step) <= 7)
        first = math.ceil(self.low / step - 1e-9)
        values = [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(value, f"{value:.4g}") for value in values]


@dataclass(frozen=True)
class EventMark:
    """An event on a row: when (years or days from the prediction time), which group, and words for it."""

    at: float
    group: str
    words: str


@dataclass(frozen=True)
class TimelineRow:
    """A horizontal line from `start` to `end` with marks on it."""

    name: str
    start: float
    end: float
    marks: Sequence[EventMark]
    observed: bool = False


def unit_plot(curves: Sequence[PlotLine], x_label: str, y_label: str, limit: float = 1.0) -> str:
    """Curves over the square [0, limit] x [0, limit] with its diagonal: an ROC or a calibration plot."""
    return plot(curves, Axis(x_label, 0, limit), Axis(y_label, 0, limit), diagonal=True)


def plot(
    curves: Sequence[PlotLine], across: Axis, up: Axis, *, diagonal: bool = False, colors: int = len(COLORS)
) -> str:
    """Curves over a square, clipped at the axes.

    Args:
        colors: the palette repeats after this many curves; a curve without a name is not in the legend.
    """
    x = across.position(LEFT, LEFT + SIZE)
    y = up.position(TOP + SIZE, TOP)
    parts = [_axes(x, y, across, up)]
    if diagonal:
        ends = f'x1="{LEFT}" y1="{TOP + SIZE}" x2="{LEFT + SIZE}" y2="{TOP}"'
        parts.append(f'<line class="diagonal" {ends}/>')
    for curve, color in zip(curves, _cycled(colors), strict=False):
        inside = [
            (a, b) for a, b in curve.points if across.low <= a <= across.high and up.low <= b <= up.high
        ]
        if curve.line:
            path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in inside)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        for (a, _), (low, high) in zip(curve.points, curve.spread, strict=False):
            if not low <= high:
                continue
            ends = (y(min(max(end, up.low), up.high)) for end in (low, high))
            y1, y2 = (f"{end:.1f}" for end in ends)
            parts.append(f'<line x1="{x(a):.1f}" y1="{y1}" x2="{x(a):.1f}" y2="{y2}" stroke="{color}"/>')
        if curve.marks:
            parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{color}"/>' for a, b in inside]
    parts += _legend([curve.name for curve in curves])
    return _svg(LEFT + SIZE + RIGHT + 130, TOP + SIZE + BOTTOM, parts, f"{up.label} against {across.label}")


def alone(svg: str) -> str:
    """A picture as a file of its own, with the style that a page would give it."""
    style = "text{font:11px sans-serif;fill:#444}.frame{fill:none;stroke:#bbb}.diagonal{stroke:#888}"
    head, _, rest = svg.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def timelines(
    rows: Sequence[TimelineRow], colors: dict[str, str], start: float, end: float, unit: str, horizon: float | None
) -> str:
    """Timelines, one per row; the vertical line at 0 is the prediction time, a dashed one the horizon.

    Args:
        colors: group of mark -> color.
        start: left end of the axis, in `unit` from the prediction time (negative: the past).
    """
    left, width, step = 110, 620, 20
    x = _scale(start, end, left, left + width)
    bottom = TOP + step * len(rows) + 4
    parts = [f'<line class="axis" x1="{x(0):.1f}" y1="{TOP - 6}" x2="{x(0):.1f}" y2="{bottom}"/>']
    if horizon is not None and horizon <= end:
        parts.append(
            f'<line class="diagonal" x1="{x(horizon):.1f}" y1="{TOP - 6}" x2="{x(horizon):.1f}" y2="{bottom}"/>'
        )
    for number, row in enumerate(rows):
        y = TOP + step * number + step / 2
        weight = "observed" if row.observed else "simulated"
        parts.append(
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" class="{weight}">{escape(row.name)}</text>'
        )
        ends = f'x1="{x(max(row.start, start)):.1f}" x2="{x(min(row.end, end)):.1f}"'
        parts.append(f'<line class="row {weight}" {ends} y1="{y:.1f}" y2="{y:.1f}"/>')
        for mark in row.marks:
            if start <= mark.at <= end:
                parts.append(
                    f'<circle cx="{x(mark.at):.1f}" cy="{y:.1f}" r="4.5" style="fill:{colors[mark.group]}">'
                    f"<title>{escape(mark.words)}</title></circle>"
                )
    for tick in _ticks(start, end):
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{bottom + 30}" text-anchor="middle">{escape(unit)}</text>')
    return _svg(left + width + RIGHT, bottom + 36, parts, "timelines")


def _axes(x: Callable[[float], float], y: Callable[[float], float], across: Axis, up: Axis) -> str:
    parts = [f'<rect class="frame" x="{LEFT:.1f}" y="{TOP:.1f}" width="{SIZE}" height="{SIZE}"/>']
    for value, words in across.ticks():
        parts.append(
            f'<text x="{x(value):.1f}" y="{TOP + SIZE + 15:.1f}" text-anchor="middle">{words}</text>'
        )
    for value, words in up.ticks():
        parts.append(f'<text x="{LEFT - 6:.1f}" y="{y(value) + 4:.1f}" text-anchor="end">{words}</text>')
    middle = f'x="{LEFT + SIZE / 2}" y="{TOP + SIZE + 34}" text-anchor="middle"'
    parts.append(f"<text {middle}>{escape(across.label)}</text>")
    turned = f'text-anchor="middle" transform="rotate(-90 11 {TOP + SIZE / 2})"'
    parts.append(f'<text x="11" y="{TOP + SIZE / 2}" {turned}>{escape(up.label)}</text>')
    return "".join(parts)


def _cycled(count: int) -> Iterator[str]:
    """`count` colors of the palette, over and over."""
    palette = [color for color, _ in zip(cycle(COLORS), range(count), strict=False)]
    return cycle(palette)


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for number, (name, color) in enumerate(zip(names, cycle(COLORS), strict=False)):
        if name:
            y = TOP + 14 + 17 * sum(map(bool, names[:number]))
            parts.append(f'<rect x="{LEFT + SIZE + 12}" y="{y - 8}" width="12" height="3" fill="{color}"/>')
            parts.append(f'<text x="{LEFT + SIZE + 29}" y="{y - 2}">{escape(name)}</text>')
    return parts


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Powers of ten, with 2 and 5 times them where there are few; where there are none, the ends and the middle."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        values = [step * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in values if low <= value <= high]
        if len(inside) >= 3:
            skip = math.ceil(len(inside) / 6)
            return [(value, f"{value:g}".replace("e+", "e").replace("e0", "e")) for value in inside[::skip]]
    return [(value, f"{value:.3g}") for value in (low, math.sqrt(low * high), high)]


def _ticks(start: float, end: float) -> list[float]:
    """Round numbers from `start` to `end`, about eight of them."""
    step = next(size for size in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if (end - start) / size <= 10)
    first = -(-start // step)
    return [step * number for number in range(int(first), int(end // step) + 1)]


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _svg(width: float, height: float, parts: Sequence[str], words: str) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg {size} role="img" aria-label="{escape(words)}">{"".join(parts)}</svg>'
