"""Small SVG pictures for the report: text stays text, colours follow the page, nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

SIZE = 300  # the square that a curve is drawn in, in SVG units
LEFT, TOP, RIGHT, BOTTOM = 44, 10, 12, 40
# Okabe and Ito 2008: told apart with every kind of colour vision; also the order of importance
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Curve:
    """A named line through points in [0, 1] x [0, 1]; `spread` draws a vertical bar at each point."""

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[tuple[float, float]] = ()
    marks: bool = False


@dataclass(frozen=True)
class Mark:
    """An event on a lane: when (years or days from the prediction time), what kind, and words for it."""

    at: float
    kind: str
    words: str


@dataclass(frozen=True)
class Lane:
    """A horizontal line from `start` to `end` with marks on it."""

    name: str
    start: float
    end: float
    marks: Sequence[Mark]
    observed: bool = False


def unit_plot(curves: Sequence[Curve], x_label: str, y_label: str, limit: float = 1.0) -> str:
    """Curves over the square [0, limit] x [0, limit] with its diagonal: an ROC or a calibration plot."""
    x = _scale(0, limit, LEFT, LEFT + SIZE)
    y = _scale(0, limit, TOP + SIZE, TOP)
    parts = [_axes(x, y, limit, x_label, y_label)]
    parts.append(
        f'<line class="diagonal" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(limit):.1f}" y2="{y(limit):.1f}"/>'
    )
    for curve, colour in zip(curves, COLOURS, strict=False):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        for (a, _), (low, high) in zip(curve.points, curve.spread, strict=False):
            parts.append(
                f'<line x1="{x(a):.1f}" y1="{y(low):.1f}" x2="{x(a):.1f}" y2="{y(high):.1f}" stroke="{colour}"/>'
            )
        if curve.marks:
            parts += [
                f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in curve.points
            ]
    parts += _legend([curve.name for curve in curves])
    return _svg(LEFT + SIZE + RIGHT + 130, TOP + SIZE + BOTTOM, parts, f"{y_label} against {x_label}")


def lanes(
    rows: Sequence[Lane], kinds: dict[str, str], start: float, end: float, unit: str, horizon: float | None
) -> str:
    """Timelines one below the other; the vertical line at 0 is the prediction time, a dashed one the horizon.

    Args:
        kinds: kind of mark -> colour.
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
        weight = "observed" if row.observed else "imagined"
        parts.append(
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" class="{weight}">{escape(row.name)}</text>'
        )
        ends = f'x1="{x(max(row.start, start)):.1f}" x2="{x(min(row.end, end)):.1f}"'
        parts.append(f'<line class="lane {weight}" {ends} y1="{y:.1f}" y2="{y:.1f}"/>')
        for mark in row.marks:
            if start <= mark.at <= end:
                parts.append(
                    f'<circle cx="{x(mark.at):.1f}" cy="{y:.1f}" r="4.5" style="fill:{kinds[mark.kind]}">'
                    f"<title>{escape(mark.words)}</title></circle>"
                )
    for tick in _ticks(start, end):
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{bottom + 30}" text-anchor="middle">{escape(unit)}</text>')
    return _svg(left + width + RIGHT, bottom + 36, parts, "timelines")


def _axes(
    x: Callable[[float], float], y: Callable[[float], float], limit: float, x_label: str, y_label: str
) -> str:
    parts = [f'<rect class="frame" x="{x(0):.1f}" y="{y(limit):.1f}" width="{SIZE}" height="{SIZE}"/>']
    for step in range(6):
        value = limit * step / 5
        parts.append(f'<text x="{x(value):.1f}" y="{y(0) + 15:.1f}" text-anchor="middle">{value:.2g}</text>')
        parts.append(f'<text x="{x(0) - 6:.1f}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    parts.append(
        f'<text x="{LEFT + SIZE / 2}" y="{TOP + SIZE + 34}" text-anchor="middle">{escape(x_label)}</text>'
    )
    turned = f'transform="rotate(-90 11 {TOP + SIZE / 2})"'
    parts.append(f'<text x="11" y="{TOP + SIZE / 2}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return "".join(parts)


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        y = TOP + 14 + 17 * number
        parts.append(f'<rect x="{LEFT + SIZE + 12}" y="{y - 8}" width="12" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + SIZE + 29}" y="{y - 2}">{escape(name)}</text>')
    return parts


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
