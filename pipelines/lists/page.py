"""An evaluation of lists as one HTML page with pictures drawn in SVG: no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldwise.features.report.chart import shown
from fieldwise.features.report.page import head
from fieldwise.pipelines.lists.measure import SYSTEMS
from fieldwise.training.evaluation import exposure
from fieldwise.training.evaluation.ranking import NAMES

PAGE = "report.html"
_COLOURS = dict(zip(SYSTEMS, ("#47a", "#c73", "#999"), strict=True))
_WIDTH, _HEIGHT, _EDGE = 260, 150, 30
_OWN = "".join(
    f".{name} {{ color: {colour}; }} svg .{name} {{ stroke: {colour}; }} svg circle.{name} {{ fill: {colour}; }}"
    for name, colour in _COLOURS.items()
)


def page(found: Mapping[str, Any], title: str) -> str:
    """Metrics by cutoff beside both yardsticks, what the lists show, and slices with their intervals."""
    counts, days = found["counts"], found["days"]
    when = f" from {days[0]} to {days[-1]}" if days else ""
    legend = ", ".join(f"<b class={name}>{name}</b>" for name in SYSTEMS)
    parts = [
        head(title, f"{_OWN}svg text {{ font-size: 10px; }}"),
        f"<p>{counts['lists']:,} lists of model {shown(str(found['lists']['model_version']))}; wanted"
        f"{shown(when)}: {counts['pairs']:,} pairs of {counts['contexts']:,} contexts, in a catalog of "
        f"{found['items']:,} items.</p>",
        f"<h2>By length of the list</h2><p>{legend}; bars: intervals of {found['confidence']:.0%} confidence.</p>",
        *(_curves(name, found["metrics"], found["cutoffs"]) for name in NAMES),
        "<h2>What the lists show</h2><div class=wide><table><tr><th>up to place",
        *(f"<th>{name}" for name in exposure.NAMES),
        "</tr>",
        *(_exposed(cutoff, found["exposure"]) for cutoff in found["cutoffs"]),
        f"</table></div><h2>Slices by {shown(found['by'])}, the worst first</h2>",
        _slices(found["slices"], found["by"]),
        "</html>\n",
    ]
    return "".join(parts)


def _curves(name: str, metrics: Mapping[str, Any], cutoffs: Sequence[int]) -> str:
    """One metric at all cutoffs."""
    every = {system: [metrics[f"{name}@{cutoff}"][system] for cutoff in cutoffs] for system in SYSTEMS}
    top = max([each["high"] or each["value"] for of in every.values() for each in of] + [1e-12])
    step = (_WIDTH - 2 * _EDGE) / max(1, len(cutoffs) - 1)
    xs = [_EDGE + step * at for at in range(len(cutoffs))]

    def y(value: float) -> float:
        return _HEIGHT - _EDGE + (2 * _EDGE - _HEIGHT) * value / top

    marks = [f"<text x='0' y='12'>{name}, top {top:.4g}</text>"]
    marks += [f"<text x='{x:.1f}' y='{_HEIGHT - 10}'>{cutoff}</text>" for x, cutoff in zip(xs, cutoffs, strict=True)]
    for system, of in every.items():
        line = " ".join(f"{x:.1f},{y(each['value']):.1f}" for x, each in zip(xs, of, strict=True))
        marks.append(f"<polyline class={system} points='{line}'/>")
        for x, each in zip(xs, of, strict=True):
            marks.append(f"<circle class={system} cx='{x:.1f}' cy='{y(each['value']):.1f}' r='3'/>")
            if each["low"] is not None:
                ends = f"y1='{y(each['low']):.1f}' y2='{y(each['high']):.1f}'"
                marks.append(f"<line class={system} x1='{x:.1f}' x2='{x:.1f}' {ends}/>")
    return f"<svg width='{_WIDTH}' height='{_HEIGHT}' role='img'>{''.join(marks)}</svg>"


def _exposed(cutoff: int, found: Mapping[str, float | None]) -> str:
    values = (found[f"{name}@{cutoff}"] for name in exposure.NAMES)
    return f"<tr><td>{cutoff}" + "".join(f"<td class=n>{'-' if v is None else f'{v:,.4f}'}" for v in values) + "</tr>"


def _slices(slices: Sequence[Mapping[str, Any]], by: str) -> str:
    top = max(
        [each[by][system]["high"] or each[by][system]["value"] for each in slices for system in SYSTEMS] + [1e-12]
    )
    rows = []
    for each in slices:
        marks, texts = [], []
        for at, system in enumerate(SYSTEMS):
            of, y = each[by][system], 6 + 9 * at
            marks.append(f"<circle class={system} cx='{4 + 290 * of['value'] / top:.1f}' cy='{y}' r='3'/>")
            if of["low"] is not None:
                ends = f"x1='{4 + 290 * of['low'] / top:.1f}' x2='{4 + 290 * of['high'] / top:.1f}'"
                marks.append(f"<line class={system} y1='{y}' y2='{y}' {ends}/>")
            texts.append(f"<span class={system}>{of['value']:.5f}</span>")
        rows.append(
            f"<tr><td>{shown(each['slice'])}<td class=n>{each['contexts']:,}<td class=n>{'<br>'.join(texts)}"
            f"<td><svg width='300' height='30' role='img'>{''.join(marks)}</svg></tr>"
        )
    return f"<div class=wide><table><tr><th>slice<th>contexts<th>{shown(by)}<th></tr>{''.join(rows)}</table></div>"
