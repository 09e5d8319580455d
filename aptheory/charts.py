"""Charts as inline SVG for the report: values on hover, no script, no image, no network.

A chart here is a string. Every mark carries its value in a ``<title>``, which browsers show on
hover and screen readers read aloud; sizes are relative, so a phone shows the same chart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import pandas as pd

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40


@dataclass
class Line:
    """One curve: x, y and maybe an interval around y."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dash: str = ""
    names: Sequence[str] = field(default_factory=list)
    star: int | None = None  # index of the point to mark


def line_chart(lines: Sequence[Line], *, x_label: str, y_label: str, summary: str) -> str:
    """Curves with bands and hover values; ``summary`` is what a screen reader says first."""
    xs = np.concatenate([np.asarray(line.x, float) for line in lines])
    drawn = [v for line in lines for v in (line.y, line.low, line.high) if v is not None]
    ys = np.concatenate([np.asarray(v, float) for v in drawn])
    ys = ys[np.isfinite(ys)]
    x0, x1 = float(xs.min()), float(max(xs.max(), xs.min() + 1))
    margin = 0.06 * (float(np.ptp(ys)) or 1.0)
    y0, y1 = float(ys.min() - margin), float(ys.max() + margin)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [_open(summary)]
    for tick in _ticks(y0, y1):
        height = at(x0, tick)[1]
        parts.append(_rule(LEFT, height, WIDTH - RIGHT, height))
        parts.append(_text(LEFT - 6, height + 4, f"{tick:g}", "end"))
    for tick in _ticks(x0, x1, whole=True):
        parts.append(_text(at(tick, y0)[0], HEIGHT - BOTTOM + 16, f"{tick:g}"))
    for line in lines:
        points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        banded = line.low is not None and line.high is not None and np.isfinite(line.low).all()
        if banded:
            upper = [at(x, y) for x, y in zip(line.x, line.high or (), strict=True)]
            lower = [at(x, y) for x, y in zip(line.x, line.low or (), strict=True)]
            band = _points(upper + lower[::-1])
            parts.append(f'<polygon points="{band}" fill="{line.color}" opacity="0.15"/>')
        parts.append(
            f'<polyline points="{_points(points)}" fill="none" stroke="{line.color}"'
            f' stroke-width="2" stroke-dasharray="{line.dash}"/>'
        )
        for i, point in enumerate(points):
            name = f" ({line.names[i]})" if len(line.names) else ""
            told = f"{line.label}, layer {line.x[i]:g}{name}: {line.y[i]:.4g}"
            if line.low is not None and line.high is not None:
                told += _bounds(line.low[i], line.high[i])
            parts.append(_dot(*point, told, line.color, 7 if line.star == i else 3.5))
    parts.append(_labels(x_label, y_label))
    return "".join(parts) + "</svg>" + _legend([(line.color, line.label) for line in lines])


def heat_map(table: pd.DataFrame, *, x_label: str, y_label: str, summary: str) -> str:
    """A matrix in [0, 1] as shaded cells with hover values; row 0 at the bottom."""
    rows, columns = table.shape
    side = min((WIDTH - LEFT - RIGHT) / columns, 420 / rows)
    height = TOP + BOTTOM + rows * side
    parts = [_open(summary, height=height)]
    step = max(1, max(rows, columns) // 12)
    for i, (row_name, row) in enumerate(table.iterrows()):
        y = TOP + (rows - 1 - i) * side
        if i % step == 0:
            parts.append(_text(LEFT - 6, y + side / 2 + 4, str(row_name), "end"))
        for j, (column_name, value) in enumerate(row.items()):
            if not np.isfinite(value):
                continue
            parts.append(
                f'<rect x="{LEFT + j * side:.1f}" y="{y:.1f}" width="{side:.2f}"'
                f' height="{side:.2f}" fill="{_shade(float(value))}">'
                f"<title>{row_name}, {column_name}: {value:.3f}</title></rect>"
            )
    for j, column_name in enumerate(table.columns):
        if j % step == 0:
            parts.append(_text(LEFT + (j + 0.5) * side, height - BOTTOM + 16, str(column_name)))
    parts.append(_labels(x_label, y_label, height=height, width=LEFT + columns * side))
    scale = [(_shade(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    return "".join(parts) + "</svg>" + _legend(scale)


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    x_label: str,
    summary: str,
    color: str = "#0072B2",
    zero: bool = False,
) -> str:
    """Points with horizontal intervals, one row a label (a forest plot)."""
    row, left = 24, 250
    height = TOP + BOTTOM + row * len(labels)
    ends = [v for v in (*values, *low, *high) if np.isfinite(v)] + ([0.0] if zero else [])
    spread = (max(ends) - min(ends)) or 1.0
    x0, x1 = min(ends) - 0.05 * spread, max(ends) + 0.05 * spread

    def px(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (WIDTH - left - RIGHT)

    parts = [_open(summary, height=height)]
    for tick in _ticks(x0, x1):
        parts.append(_rule(px(tick), TOP, px(tick), height - BOTTOM))
        parts.append(_text(px(tick), height - BOTTOM + 16, f"{tick:g}"))
    if zero:
        parts.append(_rule(px(0), TOP, px(0), height - BOTTOM, "#555"))
    for i, (label, value, a, b) in enumerate(zip(labels, values, low, high, strict=True)):
        y = TOP + (i + 0.5) * row
        parts.append(_text(left - 8, y + 4, label, "end"))
        if np.isfinite(a) and np.isfinite(b):
            parts.append(_rule(px(a), y, px(b), y, color, 2))
        parts.append(_dot(px(value), y, f"{label}: {value:.4g}{_bounds(a, b)}", color, 4.5))
    parts.append(_labels(x_label, "", height=height))
    return "".join(parts) + "</svg>"


def front_chart(
    labels: Sequence[str],
    x: Sequence[float],
    y: Sequence[float],
    best: Sequence[bool],
    *,
    x_label: str,
    y_label: str,
    summary: str,
) -> str:
    """Points of y against x > 0 (logarithmic); those of the front are named and joined by steps."""
    powers = np.log10(np.asarray(x, float))
    values = np.asarray(y, float)
    p0, p1 = np.floor(powers.min()), max(np.ceil(powers.max()), np.floor(powers.min()) + 1)
    margin = 0.1 * (float(np.ptp(values)) or 1.0)
    y0, y1 = float(values.min() - margin), float(values.max() + margin)

    def at(power: float, value: float) -> tuple[float, float]:
        return (
            LEFT + (power - p0) / (p1 - p0) * (WIDTH - LEFT - RIGHT - 70),
            HEIGHT - BOTTOM - (value - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [_open(summary)]
    for tick in _ticks(y0, y1):
        height = at(p0, tick)[1]
        parts.append(_rule(LEFT, height, WIDTH - RIGHT, height))
        parts.append(_text(LEFT - 6, height + 4, f"{tick:g}", "end"))
    for power in range(int(p0), int(p1) + 1):
        parts.append(_text(at(power, y0)[0], HEIGHT - BOTTOM + 16, f"{10.0**power:,.12g}"))
    chosen = sorted((powers[i], values[i], labels[i]) for i in range(len(labels)) if best[i])
    corners: list[tuple[float, float]] = []
    for power, value, _ in chosen:
        if corners:
            corners.append((at(power, value)[0], corners[-1][1]))
        corners.append(at(power, value))
    parts.append(f'<polyline points="{_points(corners)}" fill="none" stroke="#D55E00"/>')
    for label, cost, power, value, on in zip(labels, x, powers, values, best, strict=True):
        told = f"{label}: {value:.4g} at {cost:,.6g}"
        parts.append(_dot(*at(power, value), told, "#D55E00" if on else "#0072B2", 5))
    for power, value, label in chosen:
        left, top = at(power, value)
        parts.append(_text(left + 8, top - 7, label, "start"))
    parts.append(_labels(x_label, y_label))
    return "".join(parts) + "</svg>"


def _open(summary: str, *, height: float = HEIGHT) -> str:
    said = escape(summary, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{said}"'
        ' xmlns="http://www.w3.org/2000/svg">'
    )


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, color: str = "#e3e3e3", width=1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{color}" stroke-width="{width}"/>'
    )


def _dot(x: float, y: float, told: str, color: str, radius: float) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}">'
        f"<title>{escape(told)}</title></circle>"
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _bounds(low: float, high: float) -> str:
    return f" [{low:.4g}, {high:.4g}]" if np.isfinite(low) and np.isfinite(high) else ""


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    swatches = [
        f'<span><i style="background:{color}"></i>{escape(label)}</span>'
        for color, label in entries
    ]
    return f'<p class="legend">{"".join(swatches)}</p>'


def _labels(x_label: str, y_label: str, *, height: float = HEIGHT, width: float = WIDTH) -> str:
    middle = height / 2
    return _text((LEFT + width) / 2, height - 6, x_label) + (
        f'<text x="12" y="{middle:.0f}" text-anchor="middle"'
        f' transform="rotate(-90 12 {middle:.0f})">{escape(y_label)}</text>'
    )


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Four to eight round numbers inside [low, high]."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.8)
    step = max(1.0, step) if whole else step
    first = np.ceil(low / step) * step
    return [float(v) for v in np.arange(first, high + step * 1e-6, step).round(10)]


def _shade(value: float) -> str:
    """From dark blue (0) through grey to yellow (1): ordered in lightness as well as in hue."""
    stops = np.array([[0, 32, 77], [124, 123, 120], [255, 234, 70]], float)
    place = min(max(value, 0.0), 1.0) * (len(stops) - 1)
    i = min(int(place), len(stops) - 2)
    red, green, blue = stops[i] + (place - i) * (stops[i + 1] - stops[i])
    return f"#{int(red):02x}{int(green):02x}{int(blue):02x}"
