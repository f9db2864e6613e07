"""Pictures of pages, drawn in SVG: axes with ticks, titles, as wide as the page has room; colours are the page's, light
or dark. Whatever text comes in is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from fieldwise.features.terminal import printable

STYLE = """
figure { margin: 0; flex: 1 1 20em; max-width: 30em; } figcaption { font-weight: 600; }
figure svg { width: 100%; height: auto; } .charts { display: flex; flex-wrap: wrap; gap: 1em 1.5em; }
svg text { fill: var(--ink); font-size: 11px; } svg .axis { stroke: var(--line); stroke-width: 1; }
svg .c0, svg .c1, svg .c2 { fill: none; stroke-width: 2; } svg .dash { stroke-dasharray: 4 4; stroke-width: 1.5; }
svg .c0 { stroke: var(--c0); } svg .c1 { stroke: var(--c1); } svg .c2 { stroke: var(--c2); }
svg .grey { stroke: var(--line); fill: none; stroke-dasharray: 3 3; }
svg .dot { stroke: none; } svg .dot.c0 { fill: var(--c0); } svg .dot.c1 { fill: var(--c1); } svg .dot.c2 { fill: var(--c2); }
svg .plus { fill: var(--c0); } svg .minus { fill: var(--c1); } svg .none { fill: var(--faint); }
.k0 { color: var(--c0); } .k1 { color: var(--c1); } .k2 { color: var(--c2); }
"""  # noqa: E501
_WIDTH, _HEIGHT = 380.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 8.0, 38.0
_COLOURS = 3
_LABEL = 15
"""Characters of a name beside a cell."""


class Line(NamedTuple):
    """Points in the order in which they are joined; ``dots`` are marked too. ``grey``: a line for the eye alone."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    grey: bool = False


class Scale(NamedTuple):
    """From values to places on an axis, and where its ticks are."""

    place: Callable[[float], float]
    ticks: Sequence[float]


def plain(text: str) -> str:
    """Text as markup that shows it as it is."""
    return escape(printable(text))


def shown(text: str) -> str:
    """The same; whichever way its letters run, what stands around them does not turn."""
    return f"<bdi>{plain(text)}</bdi>"


def chart(title: str, x: str, y: str, lines: Sequence[Line], *, log: bool = False, square: bool = False) -> str:
    """Lines over two named axes; empty where there is nothing to draw.

    Args:
        log: both axes in powers of ten, for rare things; points that are not positive are left out.
        square: both axes have the range of both.
    """
    kept = [line for line in (_drawable(line, log) for line in lines) if line.x]
    if not kept:
        return ""
    xs, ys = [v for line in kept for v in line.x], [v for line in kept for v in line.y]
    across = _scale(xs + ys if square else xs, _LEFT, _WIDTH - _RIGHT, log)
    up = _scale(xs + ys if square else ys, _HEIGHT - _BOTTOM, _TOP, log)
    marks, colour = [_axes(across, up, x, y)], 0
    for line in kept:
        kind = "grey" if line.grey else f"c{colour % _COLOURS}{' dash' if colour >= _COLOURS else ''}"
        colour += not line.grey
        points = [(across.place(a), up.place(b)) for a, b in zip(line.x, line.y, strict=True)]
        marks.append(f"<polyline class='{kind}' points='{' '.join(f'{a:.1f},{b:.1f}' for a, b in points)}'/>")
        if line.dots or len(points) == 1:
            marks += [f"<circle class='dot {kind}' cx='{a:.1f}' cy='{b:.1f}' r='2.5'/>" for a, b in points]
    named = [line.name for line in kept if line.name and not line.grey]
    legend = ", ".join(f"<span class=k{at % _COLOURS}>{plain(name)}</span>" for at, name in enumerate(named))
    return _figure(title, marks, legend if len(named) > 1 else "")


def heat(title: str, names: Sequence[str], values: Sequence[Sequence[float]], told: Callable[[float], str]) -> str:
    """A square of cells, row by column, the deeper the larger the value is beside the largest; negative ones in the
    other colour. Each says under the pointer what it is."""
    n = len(names)
    if not n:
        return ""
    high = max((abs(value) for row in values for value in row), default=0.0) or 1.0
    left, top = 92.0, 8.0
    cell = (_WIDTH - left - 6) / n
    bottom = top + cell * n
    marks = []
    for f, row in enumerate(values):
        for g, value in enumerate(row):
            kind = "plus" if value > 0 else "minus" if value < 0 else "none"
            deep = 1.0 if value == 0 else 0.08 + 0.92 * abs(value) / high
            about = plain(f"{names[f] if f == g else f'{names[f]} x {names[g]}'}: {told(value)}")
            place = f"x='{left + g * cell:.1f}' y='{top + f * cell:.1f}' width='{cell - 1:.1f}' height='{cell - 1:.1f}'"
            marks.append(f"<rect class={kind} fill-opacity='{deep:.3f}' {place}><title>{about}</title></rect>")
    style = f"style='font-size:{min(11.0, max(4.0, cell)):.1f}px'"
    for f, name in enumerate(names):
        middle = cell * (f + 0.5)
        short = name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
        marks.append(_text(short, f"{style} x='{left - 5}' y='{top + middle + 4:.1f}'", "end"))
        turned = f"translate({left + middle + 3:.1f} {bottom + 8:.1f}) rotate(-60)"
        marks.append(_text(short, f"{style} transform='{turned}'", "end"))
    return _figure(title, marks, "", bottom + 80)


def _figure(title: str, marks: Sequence[str], legend: str, height: float = _HEIGHT) -> str:
    below = f"<small>{legend}</small>" if legend else ""
    box = f"<svg viewBox='0 0 {_WIDTH:.0f} {height:.0f}' role='img'><title>{plain(title)}</title>"
    return f"<figure><figcaption>{plain(title)}</figcaption>{box}{''.join(marks)}</svg>{below}</figure>"


def _text(text: str, attributes: str, anchor: str = "middle") -> str:
    return f"<text text-anchor={anchor} {attributes}>{plain(text)}</text>"


def _drawable(line: Line, log: bool) -> Line:
    """The points that have a place."""
    pairs = [(a, b) for a, b in zip(line.x, line.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    pairs = [pair for pair in pairs if min(pair) > 0] if log else pairs
    return line._replace(x=[a for a, _ in pairs], y=[b for _, b in pairs])


def _axes(across: Scale, up: Scale, x: str, y: str) -> str:
    base, left = _HEIGHT - _BOTTOM, _LEFT
    marks = [f"<path class=axis fill=none d='M{left} {_TOP}V{base}H{_WIDTH - _RIGHT}'/>"]
    for tick in across.ticks:
        at = across.place(tick)
        marks.append(f"<path class=axis d='M{at:.1f} {base}v4'/>" + _text(f"{tick:g}", f"x='{at:.1f}' y='{base + 15}'"))
    for tick in up.ticks:
        at = up.place(tick)
        marks.append(f"<path class=axis d='M{left} {at:.1f}h-4'/>")
        marks.append(_text(f"{tick:g}", f"x='{left - 6}' y='{at + 4:.1f}'", "end"))
    marks.append(_text(x, f"x='{(left + _WIDTH - _RIGHT) / 2:.0f}' y='{_HEIGHT - 6}'"))
    marks.append(_text(y, f"transform='translate(11 {(_TOP + base) / 2:.0f}) rotate(-90)'"))
    return "".join(marks)


def _scale(values: Sequence[float], start: float, stop: float, log: bool) -> Scale:
    """An axis that holds all values and ends at a tick, or near one."""
    low, high = min(values), max(values)
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        first, last = powers[0], max(powers[-1], powers[0] + 1)
        ticks = [10.0**power for power in range(first, last + 1)][:: max(1, (last - first) // 5)]
        return Scale(lambda v: start + (stop - start) * (math.log10(v) - first) / (last - first), ticks)
    step = _step((high - low) or abs(high) or 1.0)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    high = high if high > low else low + step
    ticks = [round(low + step * n, 12) for n in range(round((high - low) / step) + 1)]
    return Scale(lambda v: start + (stop - start) * (v - low) / (high - low), ticks)


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, about a fifth of the span."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
