"""Pictures of pages, drawn in SVG: axes with ticks, titles, as wide as the page has room; colours are the page's, light
or dark. Python says what stands where, templates write it, and so escape whatever text comes in."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fieldwise.features.report.markup import render

_HERE = Path(__file__).resolve().parent
_WIDTH, _HEIGHT = 380.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 8.0, 38.0
_COLOURS = 3
_LABEL, _LONG_LABEL = 15, 60
"""Characters of a name beside a cell, above a bar."""
_AXIS = 120.0
"""Between axes that stand side by side."""
_ROW, _VALUE = 30.0, 50.0
"""Height of a bar with its name; room for a value beside it."""


class Line(NamedTuple):
    """Points in the order in which they are joined; ``dots`` are marked too. ``grey``: a line for the eye alone.
    ``ends``: the low and the high end of each point's interval, None where it has none."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    grey: bool = False
    ends: Sequence[tuple[float, float] | None] = ()


class Interval(NamedTuple):
    """A value and, where it has them, the ends of its interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Scale(NamedTuple):
    """From values to places on an axis, and where its ticks are."""

    place: Callable[[float], float]
    ticks: Sequence[float]


class Mark(NamedTuple):
    """An element of a picture; ``tip`` is what it says under the pointer."""

    tag: str
    attributes: dict[str, Any]
    text: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Picture:
    """Marks on a sheet. Templates write it as a figure with its title, or ``plain``: the drawing alone. False where
    there was nothing to draw."""

    title: str
    marks: list[Mark] = field(default_factory=list)
    legend: list[str] = field(default_factory=list)
    width: float = _WIDTH
    height: float = _HEIGHT
    plain: bool = False
    broad: bool = False

    def __bool__(self) -> bool:
        return bool(self.marks)

    def __html__(self) -> str:
        return render(_HERE / "picture.html", picture=self) if self else ""

    def alone(self) -> str:
        """An SVG file, which shows itself light or dark as its reader asks."""
        return render(_HERE / "picture.svg", picture=self).lstrip()


def chart(
    title: str, x: str, y: str, lines: Sequence[Line], *, log: bool = False, square: bool = False,
    names: Sequence[str] = (), zero: bool = False,
) -> Picture:  # fmt: skip
    """Lines over two named axes.

    Args:
        log: both axes in powers of ten, for rare things; points that are not positive are left out.
        square: both axes have the range of both.
        names: what 0, 1, ... of the horizontal axis stand for; some of them are written.
        zero: the vertical axis begins at zero.
    """
    kept = [line for line in (_drawable(line, log) for line in lines) if line.x]
    if not kept:
        return Picture(title)
    xs, ys = [v for line in kept for v in line.x], [v for line in kept for v in line.y]
    ys += [end for line in kept for ends in line.ends if ends is not None for end in ends]
    ys += [0.0] if zero else []
    across = _scale(xs + ys if square else xs, _LEFT, _WIDTH - _RIGHT, log)
    if names:
        across = _named(len(names))
    up = _scale(xs + ys if square else ys, _HEIGHT - _BOTTOM, _TOP, log)
    marks, colour = _axes(across, up, x, y, names), 0
    for line in kept:
        kind = "grey" if line.grey else f"c{colour % _COLOURS}"
        dash = " dash" if colour >= _COLOURS else ""
        colour += not line.grey
        points = [(across.place(a), up.place(b)) for a, b in zip(line.x, line.y, strict=True)]
        way = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        marks.append(Mark("polyline", {"class": f"line {kind}{dash}", "points": way}))
        for (a, _), ends in zip(points, line.ends, strict=False):
            if ends is not None:
                low, high = (f"{up.place(end):.1f}" for end in ends)
                marks.append(Mark("path", {"class": f"line {kind}", "d": f"M{a:.1f} {low}V{high}"}))
        if line.dots or len(points) == 1:
            marks += [_dot(kind, a, b) for a, b in points]
    return Picture(title, marks, [line.name for line in kept if line.name and not line.grey])


def heat(title: str, names: Sequence[str], values: Sequence[Sequence[float]], told: Callable[[float], str]) -> Picture:
    """A square of cells, row by column, the deeper the larger the value is beside the largest; negative ones in the
    other colour. Each says under the pointer what it is."""
    n = len(names)
    if not n:
        return Picture(title)
    high = max((abs(value) for row in values for value in row), default=0.0) or 1.0
    left, top = 92.0, 8.0
    cell = (_WIDTH - left - 6) / n
    bottom = top + cell * n
    marks = []
    for f, row in enumerate(values):
        for g, value in enumerate(row):
            about = f"{names[f] if f == g else f'{names[f]} x {names[g]}'}: {told(value)}"
            box = _box(left + g * cell, top + f * cell, cell - 1, cell - 1)
            box["fill-opacity"] = f"{1.0 if value == 0 else 0.08 + 0.92 * abs(value) / high:.3f}"
            box["class"] = "bar c0" if value > 0 else "bar c1" if value < 0 else "none"
            marks.append(Mark("rect", box, tip=about))
    style = {"style": f"font-size:{min(11.0, max(4.0, cell)):.1f}px", "class": "end"}
    for f, name in enumerate(names):
        middle = cell * (f + 0.5)
        turned = f"translate({left + middle + 3:.1f} {bottom + 8:.1f}) rotate(-60)"
        marks.append(Mark("text", style | {"x": left - 5, "y": f"{top + middle + 4:.1f}"}, _short(name, _LABEL)))
        marks.append(Mark("text", style | {"transform": turned}, _short(name, _LABEL)))
    return Picture(title, marks, height=round(bottom + 80), broad=n > 12)


def bars(title: str, names: Sequence[str], values: Sequence[float], told: Callable[[float], str]) -> Picture:
    """A bar below each name, from a common zero; negative ones to the left, in the other colour."""
    if not names:
        return Picture(title)
    left, right = 4.0 if min(values) >= 0 else _VALUE, _WIDTH - _VALUE
    across = _scale([*values, 0.0], left, right, log=False)
    zero, height = across.place(0.0), _TOP + _ROW * len(names)
    marks = [Mark("path", {"class": "axis", "d": f"M{zero:.1f} {_TOP}V{height:.0f}"})]
    for at, (name, value) in enumerate(zip(names, values, strict=True)):
        top, end = _TOP + _ROW * at, across.place(value)
        box, about = _box(min(zero, end), top + 15, abs(end - zero), 10), f"{name}: {told(value)}"
        side = {"x": f"{end + 5:.1f}"} if value >= 0 else {"x": f"{end - 5:.1f}", "class": "end"}
        marks += [
            Mark(
                "text",
                {"x": 4, "y": f"{top + 11:.1f}"},
                _short(name, _LONG_LABEL),
                about if len(name) > _LONG_LABEL else "",
            ),
            Mark("rect", box | {"class": "bar c0" if value > 0 else "bar c1"}, tip=about),
            Mark("text", side | {"y": f"{top + 24:.1f}"}, told(value)),
        ]
    return Picture(title, marks, height=height + 4)


def columns(title: str, counts: Sequence[float], odd: int = 0) -> Picture:
    """Small columns without axes, for a cell of a table; the first ``odd`` of them in the other colour."""
    high = max(*counts, 1)
    marks = []
    for at, count in enumerate(counts):
        box = _box(4 * at, 40 - 40 * count / high, 3, 40 * count / high)
        marks.append(Mark("rect", box | {"class": "bar c1" if at < odd else "bar c0"}))
    return Picture(title, marks, width=4 * len(counts), height=40, plain=True)


def strip(title: str, values: Sequence[Interval], top: float) -> Picture:
    """Values with their intervals below each other, from zero to ``top``, for a cell of a table."""
    marks = []
    for at, (value, low, high) in enumerate(values):
        kind, y = f"c{at % _COLOURS}", 6 + 9 * at
        if low is not None and high is not None:
            way = f"M{4 + 290 * low / top:.1f} {y}H{4 + 290 * high / top:.1f}"
            marks.append(Mark("path", {"class": f"line {kind}", "d": way}))
        marks.append(_dot(kind, 4 + 290 * value / top, y))
    return Picture(title, marks, width=300, height=9 * len(values) + 3, plain=True)


def parallel(title: str, axes: Mapping[str, Sequence[Any]], value: str, logarithmic: Collection[str] = ()) -> Picture:
    """A line for each thing across one axis per property, the clearer the lower its ``value`` (one of the axes) is, the
    lowest in the other colour. Properties are finite numbers, placed by their logarithm where asked, or texts."""
    count = len(axes[value])
    if not count:
        return Picture(title)
    width, bottom = _AXIS * len(axes) + 20, _HEIGHT - _BOTTOM
    places = {
        name: [bottom + (_TOP - bottom) * at for at in _shares(v, name in logarithmic)] for name, v in axes.items()
    }
    order = sorted(range(count), key=lambda at: axes[value][at], reverse=True)
    marks = []
    for rank, at in enumerate(order):
        way = " ".join(f"{10 + _AXIS * n:.1f},{heights[at]:.1f}" for n, heights in enumerate(places.values()))
        shade = {"class": "line c0", "stroke-opacity": f"{0.15 + 0.6 * rank / count:.2f}"}
        shade = {"class": "line c1"} if rank == count - 1 else shade
        marks.append(Mark("polyline", shade | {"points": way}))
    for n, (name, heights) in enumerate(places.items()):
        x, shown = 10 + _AXIS * n, dict(zip(heights, axes[name], strict=True))
        marks.append(Mark("path", {"class": "axis", "d": f"M{x:.1f} {_TOP}V{bottom}"}))
        marks.append(Mark("text", {"x": f"{x:.1f}", "y": _HEIGHT - 6}, _short(name, _LABEL)))
        for y in sorted(shown) if isinstance(axes[name][0], str) else {min(shown), max(shown)}:
            text = shown[y] if isinstance(shown[y], str) else f"{shown[y]:.4g}"
            marks.append(Mark("text", {"x": f"{x + 4:.1f}", "y": f"{y + 4:.1f}"}, _short(text, _LABEL)))
    return Picture(title, marks, width=width, broad=True)


def fragment(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], pictures: Sequence[Picture] = ()) -> str:
    """A table and pictures for a page of somebody else, such as a notebook: its styles and ours do not meet, for
    pictures are files in it."""
    drawn = [(each.title, b64encode(each.alone().encode()).decode()) for each in pictures]
    return render(_HERE / "fragment.html", caption=caption, head=head, rows=rows, pictures=drawn)


def _dot(kind: str, x: float, y: float) -> Mark:
    return Mark("circle", {"class": f"dot {kind}", "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "2.5"})


def _box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    return {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": f"{height:.1f}"}


def _shares(values: Sequence[Any], logarithmic: bool) -> list[float]:
    """Places in [0, 1] on an axis from the lowest value to the highest; 0.5 where all are equal."""
    if isinstance(values[0], str):
        names = sorted(set(values))
        values = [float(names.index(value)) for value in values]
    placed = [math.log(value) for value in values] if logarithmic else [float(value) for value in values]
    low, high = min(placed), max(placed)
    return [(value - low) / (high - low) if high > low else 0.5 for value in placed]


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _drawable(line: Line, log: bool) -> Line:
    """The points that have a place."""
    ends = line.ends or [None] * len(line.x)
    points = [
        (a, b, end) for a, b, end in zip(line.x, line.y, ends, strict=True)
        if math.isfinite(a) and math.isfinite(b) and (not log or min(a, b) > 0)
    ]  # fmt: skip
    return line._replace(x=[a for a, _, _ in points], y=[b for _, b, _ in points], ends=[end for _, _, end in points])


def _axes(across: Scale, up: Scale, x: str, y: str, names: Sequence[str]) -> list[Mark]:
    base, left = _HEIGHT - _BOTTOM, _LEFT
    marks = [Mark("path", {"class": "axis", "d": f"M{left} {_TOP}V{base}H{_WIDTH - _RIGHT}"})]
    for tick in across.ticks:
        at, text = across.place(tick), names[int(tick)] if names else f"{tick:g}"
        kind = "end" if names and at > _WIDTH - _RIGHT - 20 else "middle"
        marks.append(Mark("path", {"class": "axis", "d": f"M{at:.1f} {base}v4"}))
        marks.append(Mark("text", {"x": f"{at:.1f}", "y": base + 15, "class": kind}, text))
    for tick in up.ticks:
        at = up.place(tick)
        marks.append(Mark("path", {"class": "axis", "d": f"M{left} {at:.1f}h-4"}))
        marks.append(Mark("text", {"x": left - 6, "y": f"{at + 4:.1f}", "class": "end"}, f"{tick:g}"))
    middle = {"x": f"{(left + _WIDTH - _RIGHT) / 2:.0f}", "y": _HEIGHT - 6, "class": "middle"}
    turned = {"transform": f"translate(11 {(_TOP + base) / 2:.0f}) rotate(-90)", "class": "middle"}
    return [*marks, Mark("text", middle, x), Mark("text", turned, y)]


def _named(n: int) -> Scale:
    """An axis of things that have names, four of which have room at most."""
    step = max(1, math.ceil((n - 1) / 3))
    span = max(1, n - 1)
    return Scale(
        lambda v: _LEFT + 8 + (_WIDTH - _RIGHT - _LEFT - 16) * v / span, [float(at) for at in range(0, n, step)]
    )


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
