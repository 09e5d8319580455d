"""Charts as inline SVG for the page: values on hover or touch, no script, image or network.

A chart here is a string. Its width is that of the place it stands in and its height is fixed, so
that letters, dots and lines keep their size on a phone as on a desk: across, everything is placed
in percent; only the curves themselves are stretched, their strokes are not. What is shown on
hover is shown on touch as well (an element with a ``tabindex`` takes the focus when touched).
"""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np
import pandas as pd

from aptheory.reporting.curves import Curve

HEIGHT = 230
"""Of the plot area, in CSS pixels."""
SPAN = 1000
"""Of a stretched curve's own horizontal axis."""

DASHES = {"-": "", "--": "6 4", ":": "2 4", "-.": "8 3 2 3"}
"""matplotlib's lines as SVG writes them."""

STYLE = """
.chart{margin:0 0 1.2rem;min-width:0;container-type:inline-size}
.chart h3{font-size:1rem;margin:0 0 .1rem}.unit{font-size:.8rem;color:var(--soft);margin:0 0 .5rem}
.plot{display:block;overflow:visible;margin:1.2rem .8rem 2.9rem 2.9rem;width:calc(100% - 3.7rem)}
.plot text{font-size:12px}.plot text:not(.star){fill:var(--soft)}
.grid{stroke:var(--line)}.base{stroke:var(--soft)}
.plot svg{overflow:visible}.plot polyline{fill:none;stroke-width:2;stroke-linejoin:round}
.plot polyline,.plot polygon{vector-effect:non-scaling-stroke}.plot polygon{stroke:none}
.plot .star{font-size:20px;stroke:var(--paper);stroke-width:3px;paint-order:stroke}
.plot .hit{fill:#fff;fill-opacity:0;stroke:none}
.plot .guide{stroke:var(--soft);stroke-dasharray:2 2}
.plot .box{fill:var(--paper);fill-opacity:.95;stroke:var(--line)}
.plot .box,.plot .guide,.plot .tip{visibility:hidden}
.plot .at{outline:none}.plot .at:hover :is(.box,.guide,.tip),.plot .at:focus :is(.box,.guide,.tip){
 visibility:visible}
.heat{max-width:24rem}.heat rect{shape-rendering:crispEdges}
.heat .at:is(:hover,:focus) rect{stroke:var(--ink)}
.front{stroke:#D55E00}.hollow{fill:var(--paper)}
.legend{font-size:.8rem;margin:0;color:var(--ink)}.legend span{margin-right:1rem;white-space:nowrap}
.legend svg{vertical-align:middle;margin-right:.35em}
.forest{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr max-content;
 column-gap:.8rem;font-size:.85rem;align-items:center}
.forest .row{display:contents}.forest svg{display:block;width:100%;overflow:visible}
.forest .number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.forest text{font-size:12px;fill:var(--soft)}
@container(max-width:36rem){.forest{grid-template-columns:1fr max-content;grid-auto-flow:dense}
 .forest svg{grid-column:1/-1}.forest .row.axis span{display:none}}
"""


def line_chart(
    lines: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    summary: str,
    title: str = "",
    zero: bool = False,
    unit: str = "layer",
) -> str:
    """Curves with bands; pointing at an x shows every curve's value there. Nothing, where no curve
    has a finite value.

    Args:
        summary: what a screen reader says first.
        zero: draw the line y = 0.
        unit: what one x is called where its values are shown.
    """
    xs = np.concatenate([np.zeros(0), *(np.asarray(line.x, float) for line in lines)])
    drawn = [v for line in lines for v in (line.y, line.low, line.high) if v is not None]
    ys = np.concatenate([np.asarray(v, float) for v in drawn] + [np.zeros(int(zero))])
    ys = ys[np.isfinite(ys)]
    if not len(xs) or not len(ys):
        return ""
    x0, x1 = float(xs.min()), float(max(xs.max(), xs.min() + 1))
    margin = 0.06 * (float(np.ptp(ys)) or 1.0)
    y0, y1 = float(ys.min() - margin), float(ys.max() + margin)

    def across(x: float) -> float:
        return (x - x0) / (x1 - x0)

    def down(y: float) -> float:
        return HEIGHT * (1 - (y - y0) / (y1 - y0))

    parts = [_open(summary)]
    for tick in _ticks(y0, y1):
        parts.append(_rule(0, down(tick), 1, down(tick)))
        parts.append(_text(0, down(tick) + 4, f"{tick:g}", "end", dx=-8))
    if zero:
        parts.append(_rule(0, down(0), 1, down(0), "base"))
    for tick in _ticks(x0, x1, whole=True):
        parts.append(_text(across(tick), HEIGHT + 18, f"{tick:g}"))
    parts.append(
        f'<svg viewBox="0 0 {SPAN} {HEIGHT}" preserveAspectRatio="none" width="100%"'
        f' height="{HEIGHT}">'
    )
    for line in lines:
        for places in line.stretches:
            upper, lower = (
                [(SPAN * across(line.x[i]), down(bound[i])) for i in places]
                for bound in (line.high or (), line.low or ())
            )
            band = _points(upper + lower[::-1])
            parts.append(f'<polygon points="{band}" fill="{line.color}" opacity="0.15"/>')
    for line in lines:
        points = _points([(SPAN * across(x), down(y)) for x, y in zip(line.x, line.y, strict=True)])
        dash = f' stroke-dasharray="{DASHES[line.line]}"' if DASHES[line.line] else ""
        parts.append(f'<polyline points="{points}" stroke="{line.color}"{dash}/>')
    parts.append("</svg>")
    for line in lines:
        for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
            if line.star == i:
                parts.append(_text(across(x), down(y) + 7, "★", mark="star", color=line.color))
            elif line.marker:
                parts.append(_dot(across(x), down(y), line.color, 3))
    edges = np.unique(xs)
    middles = (edges[1:] + edges[:-1]) / 2
    borders = [across(e) for e in (x0, *middles, x1)]
    for i, x in enumerate(edges):
        parts.append(_column(lines, float(x), across(float(x)), borders[i], borders[i + 1], unit))
    parts.append(_text(0.5, HEIGHT + 36, x_label))
    legend = [(line.color, DASHES[line.line], line.label) for line in lines]
    told = _line_legend(legend) if len(lines) > 1 else ""
    return _figure(title, y_label, "".join(parts) + "</svg>", told)


def heat_map(
    table: pd.DataFrame, *, x_label: str, y_label: str, summary: str, title: str = ""
) -> str:
    """A matrix in [0, 1] as shaded cells whose values show on hover; row 0 at the bottom."""
    rows, columns = table.shape
    parts = [_open(summary, style=f"aspect-ratio:{columns}/{rows}", mark="plot heat")]
    step = max(1, -(-max(rows, columns) // 10))
    high, wide = 100 / rows, 100 / columns
    for i, (row_name, row) in enumerate(table.iterrows()):
        top = (rows - 1 - i) * high
        if i % step == 0:
            parts.append(_text(0, f"{top + high / 2:.2f}%", str(row_name), "end", dx=-8, dy=4))
        for j, (column_name, value) in enumerate(row.items()):
            if np.isfinite(value):
                parts.append(
                    f'<g class="at" tabindex="-1"><rect x="{j * wide:.2f}%" y="{top:.2f}%" '
                    f'width="{wide + 0.05:.2f}%" height="{high + 0.05:.2f}%" '
                    f'fill="{shade(float(value))}"/><text class="tip" y="-8">'
                    f"{row_name} and {column_name}: {value:.3f}</text></g>"
                )
    for j, column_name in enumerate(table.columns):
        if j % step == 0:
            parts.append(_text((j + 0.5) / columns, "100%", str(column_name), dy=17))
    parts.append(_text(0.5, "100%", x_label, dy=34))
    scale = [(shade(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    return _figure(title, y_label, "".join(parts) + "</svg>", _legend(scale))


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    x_label: str,
    summary: str,
    title: str = "",
    colors: Sequence[str] | str = "#0072B2",
    solid: Sequence[bool] | None = None,
    limits: tuple[float, float] | None = None,
    zero: bool = False,
    digits: int = 1,
) -> str:
    """Points with horizontal intervals and their numbers, one row a label (a forest plot).

    Args:
        solid: which dots are filled; the others are hollow.
        limits: ends of the axis; by default what is shown, and a little more.
    """
    ends = [v for v in (*values, *low, *high) if np.isfinite(v)] + ([0.0] if zero else [])
    spread = (max(ends) - min(ends)) or 1.0
    x0, x1 = limits or (min(ends) - 0.05 * spread, max(ends) + 0.05 * spread)
    shades = [colors] * len(labels) if isinstance(colors, str) else colors
    sign = "+" if zero else ""

    def across(x: float) -> float:
        return min(max((x - x0) / (x1 - x0), 0.0), 1.0)

    grid = "".join(_rule(across(tick), 0, across(tick), 24) for tick in _ticks(x0, x1, most=5))
    if zero:
        grid += _rule(across(0), 0, across(0), 24, "base")
    rows = []
    for i, (label, value, a, b) in enumerate(zip(labels, values, low, high, strict=True)):
        number, marks = f"{value:{sign}.{digits}f}", ""
        if np.isfinite(a) and np.isfinite(b):
            number += f" [{a:{sign}.{digits}f}, {b:{sign}.{digits}f}]"
            marks = (
                f'<line x1="{100 * across(a):.2f}%" x2="{100 * across(b):.2f}%" y1="12" y2="12"'
                f' stroke="{shades[i]}" stroke-width="2"/>'
            )
        full = solid is None or solid[i]
        fill = f'fill="{shades[i]}"' if full else 'class="hollow"'
        marks += (
            f'<circle cx="{100 * across(value):.2f}%" cy="12" r="4.5" {fill}'
            f' stroke="{shades[i]}" stroke-width="1.5"/>'
        )
        rows.append(
            f'<div class="row" role="listitem"><span>{escape(label)}</span>'
            f'<svg height="24" aria-hidden="true">{grid}{marks}</svg>'
            f'<span class="number">{number}</span></div>'
        )
    ticks = "".join(_text(across(tick), 14, f"{tick:g}") for tick in _ticks(x0, x1, most=5))
    axis = (
        f'<div class="row axis" aria-hidden="true"><span></span><svg height="22">{ticks}</svg>'
        "<span></span></div>"
    )
    said = escape(summary, quote=True)
    body = f'<div class="forest" role="list" aria-label="{said}">{"".join(rows)}{axis}</div>'
    return _figure(title, x_label, body, "")


def front_chart(
    labels: Sequence[str],
    x: Sequence[float],
    y: Sequence[float],
    best: Sequence[bool],
    *,
    x_label: str,
    y_label: str,
    summary: str,
    title: str = "",
) -> str:
    """Points of y against x > 0 (logarithmic); those of the front are named and joined by steps."""
    powers = np.log10(np.asarray(x, float))
    values = np.asarray(y, float)
    p0, p1 = np.floor(powers.min()), max(np.ceil(powers.max()), np.floor(powers.min()) + 1)
    margin = max(0.1 * float(np.ptp(values)), 0.5)
    y0, y1 = float(values.min() - margin), float(values.max() + margin)

    def across(power: float) -> float:
        return float((power - p0) / (p1 - p0))

    def down(value: float) -> float:
        return float(HEIGHT * (1 - (value - y0) / (y1 - y0)))

    parts = [_open(summary)]
    for tick in _ticks(y0, y1):
        parts.append(_rule(0, down(tick), 1, down(tick)))
        parts.append(_text(0, down(tick) + 4, f"{tick:g}", "end", dx=-8))
    decades = range(int(p0), int(p1) + 1)
    for power in decades:
        parts.append(_text(across(power), HEIGHT + 18, _power(power)))
    chosen = sorted((powers[i], values[i], labels[i]) for i in range(len(labels)) if best[i])
    for (p, v, _), (q, w, _) in pairwise(chosen):
        parts.append(_rule(across(p), down(v), across(q), down(v), "front"))
        parts.append(_rule(across(q), down(v), across(q), down(w), "front"))
    for label, cost, power, value, on in zip(labels, x, powers, values, best, strict=True):
        dot = _dot(across(power), down(value), "#D55E00" if on else "#0072B2", 5)
        told = escape(f"{label}: {value:.4g} at {cost:,.6g}")
        hit = _dot(across(power), down(value), "", 14, "hit")
        parts.append(
            f'<g class="at" tabindex="-1">{dot}{hit}<text class="tip" y="-8">{told}</text></g>'
        )
    for power, value, label in chosen:
        left = across(power)
        anchor = "start" if left < 0.25 else "end"  # above and left of the front nothing stands
        parts.append(_text(left, down(value) - 9, label, anchor, dx=-4 if left < 0.25 else 2))
    parts.append(_text(0.5, HEIGHT + 36, x_label))
    return _figure(title, y_label, "".join(parts) + "</svg>", "")


def _figure(title: str, unit: str, body: str, legend: str) -> str:
    head = f"<h3>{escape(title)}</h3>" if title else ""
    named = f'<p class="unit">{escape(unit)}</p>' if unit else ""
    return f'<div class="chart">{head}{named}{body}{legend}</div>'


def _column(
    lines: Sequence[Curve], x: float, at: float, left: float, right: float, unit: str
) -> str:
    """What shows when one points at x: a guide, and a box beside it with every curve's value."""
    told, name = [], ""
    for line in lines:
        places = [i for i, other in enumerate(line.x) if other == x]
        for i in places:
            value = f"{line.y[i]:.3g}"
            if line.low is not None and line.high is not None:
                value += _bounds(line.low[i], line.high[i])
            told.append((line.color, value, line.short or line.label))
            if len(line.names) and line.names[i]:
                name = f" ({line.names[i]})"
    head = f"{unit} {x:g}{name}"
    said = escape(f"{head}: " + "; ".join(f"{label} {value}" for _, value, label in told), True)
    width, height = 230, 22 + 16 * len(told)
    place = (
        f'x="100%" transform="translate({-width - 2} 2)"'
        if at < 0.5
        else 'transform="translate(2 2)"'
    )
    box = [f'<rect class="box" width="{width}" height="{height}" rx="4" {place}/>']
    start = f'x="100%" dx="{8 - width}"' if at < 0.5 else 'x="10"'
    box.append(f'<text class="tip" {start} y="18">{escape(head)}</text>')
    for i, (color, value, label) in enumerate(told):
        box.append(
            f'<text class="tip" {start} y="{34 + 16 * i}"><tspan fill="{color}">■</tspan> '
            f"{value} {escape(label)}</text>"
        )
    return (
        f'<g class="at" tabindex="-1" role="img" aria-label="{said}">'
        f'<rect class="hit" x="{100 * left:.2f}%" width="{100 * (right - left):.2f}%"'
        f' height="{HEIGHT}"/><line class="guide" x1="{100 * at:.2f}%" x2="{100 * at:.2f}%"'
        f' y2="{HEIGHT}"/>{"".join(box)}</g>'
    )


def _open(summary: str, *, style: str = "", mark: str = "plot") -> str:
    said = escape(summary, quote=True)
    size = f'style="{style}"' if style else f'height="{HEIGHT}"'
    return (
        f'<svg class="{mark}" {size} role="group" aria-label="{said}"'
        ' xmlns="http://www.w3.org/2000/svg">'
    )


def _text(
    across: float,
    y: float | str,
    words: str,
    anchor: str = "middle",
    *,
    dx: float = 0,
    dy: float = 0,
    mark: str = "",
    color: str = "",
) -> str:
    place = f"{y:.1f}" if isinstance(y, float | int) else y
    shift = f' dx="{dx:g}"' * bool(dx) + f' dy="{dy:g}"' * bool(dy)
    named = f' class="{mark}"' * bool(mark) + f' fill="{color}"' * bool(color)
    return (
        f'<text{named} x="{100 * across:.2f}%" y="{place}"{shift} text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def _rule(x1: float, y1: float, x2: float, y2: float, mark: str = "grid") -> str:
    return (
        f'<line class="{mark}" x1="{100 * x1:.2f}%" y1="{y1:.1f}" x2="{100 * x2:.2f}%"'
        f' y2="{y2:.1f}"/>'
    )


def _dot(across: float, y: float, color: str, radius: float, mark: str = "") -> str:
    drawn = f'class="{mark}"' if mark else f'fill="{color}"'
    return f'<circle cx="{100 * across:.2f}%" cy="{y:.1f}" r="{radius:g}" {drawn}/>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _bounds(low: float, high: float) -> str:
    return f" [{low:.3g}, {high:.3g}]" if np.isfinite(low) and np.isfinite(high) else ""


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    swatches = [
        f'<span><svg width="12" height="12"><rect width="12" height="12" fill="{color}"/></svg>'
        f"{escape(label)}</span>"
        for color, label in entries
    ]
    return f'<p class="legend">{" ".join(swatches)}</p>'


def _line_legend(entries: Sequence[tuple[str, str, str]]) -> str:
    samples = [
        f'<span><svg width="26" height="10"><line x1="0" y1="5" x2="26" y2="5" stroke="{color}"'
        f' stroke-width="2" stroke-dasharray="{dash}"/></svg>{escape(label)}</span>'
        for color, dash, label in entries
    ]
    return f'<p class="legend">{" ".join(samples)}</p>' if samples else ""


def _power(power: int) -> str:
    """1000 as 1,000, a million as 1M: short enough to stand side by side on a phone."""
    for size, letter in ((9, "G"), (6, "M"), (3, "k")):
        if power >= size:
            return f"{10 ** (power - size)}{letter}"
    return f"{10.0**power:g}"


def _ticks(low: float, high: float, *, whole: bool = False, most: int = 8) -> list[float]:
    """Round numbers inside [low, high], at most ``most`` and seldom fewer than half of that."""
    raw = (high - low) / most
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    step = max(1.0, step) if whole else step
    first = np.ceil(low / step) * step
    return [float(v) + 0.0 for v in np.arange(first, high + step * 1e-6, step).round(10)]


def shade(value: float) -> str:
    """From dark blue (0) through grey to yellow (1): ordered in lightness as well as in hue."""
    stops = np.array([[0, 32, 77], [124, 123, 120], [255, 234, 70]], float)
    place = min(max(value, 0.0), 1.0) * (len(stops) - 1)
    i = min(int(place), len(stops) - 2)
    red, green, blue = stops[i] + (place - i) * (stops[i + 1] - stops[i])
    return f"#{int(red):02x}{int(green):02x}{int(blue):02x}"
