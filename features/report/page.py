"""The data report as one HTML page with pictures drawn in SVG: no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from fieldwise.features.report.report import FieldReport, Report, bucket_advice
from fieldwise.features.terminal import printable

PAGE = "report.html"
_BARS = 60
"""Bars a field's distribution is drawn with."""

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; color: #222; }
table { border-collapse: collapse; } th { text-align: left; border-bottom: 2px solid #888; }
th, td { padding: .35em .8em .35em 0; vertical-align: top; } tr + tr td { border-top: 1px solid #ddd; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } small { color: #666; }
.far { color: #b00; font-weight: bold; } svg rect { fill: #47a; } svg rect.odd { fill: #c73; }
svg polyline { fill: none; stroke: #47a; stroke-width: 2; } svg circle { fill: #47a; }
"""


def page(report: Report, title: str) -> str:
    """Fields in a table with their distributions, the label rate by day, and what moved."""
    negatives, positives = report.distribution.label
    rate = positives / max(1, negatives + positives)
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{plain(title)}</title><style>{STYLE}</style>",
        f"<h1>{shown(title)}</h1><p>{report.rows:,} rows; of those for training {rate:.3%} positive "
        f"(before downsampling).</p>",
        f"<p>First moment {shown(report.moments[0])}, last {shown(report.moments[1])}.</p>" if report.moments else "",
        _days(report),
        _quarantine(report),
        "<h2>Fields</h2><p>Bars: shares of missing and unseen values (orange), then of values in the order of their "
        "index, for training rows.</p><table><tr><th>field<th>distinct<th>missing<th>unseen<th>collisions<th>drift"
        "<th>distribution<th>most frequent</tr>",
        *[_field(report, name, field) for name, field in report.fields.items()],
        "</table></html>\n",
    ]
    return "".join(parts)


def _field(report: Report, name: str, field: FieldReport) -> str:
    tally, buckets, drift = field.tally, field.buckets, report.drift
    n = max(1, tally.values)
    collisions = ""
    if buckets is not None:
        collisions = (
            f"{buckets.collided:.1%} of values<br><small>{tally.used:,} of {buckets.buckets:,} buckets used; "
            f"{buckets.suggested:,} for 1&nbsp;%</small><br><small>{plain(bucket_advice(field))}</small>"
        )
    moved = ""
    if drift is not None:
        shift = drift.fields[name]
        far = " class='far'" if shift.excess > 0.25 else ""
        moved = f"<span{far}>{shift.psi:.3f}</span><br><small>{shift.chance:.3f} by chance</small>"
    about = "&ge;" if field.overfull else "~" if buckets else ""
    top = "<br>".join(
        f"{shown(text[:40])} <small>{value.count / n:.1%}, {value.positives / value.count:.2%} positive</small>"
        for text, value in zip(field.top[:5], tally.top, strict=False)
    )
    return (
        f"<tr><td><b>{shown(name)}</b><br><small>{shown(field.kind)}</small><td class=n>{about}{field.distinct:,}"
        f"<td class=n>{tally.missing / n:.2%}<td class=n>{tally.unseen / n:.2%}<td>{collisions}<td class=n>{moved}"
        f"<td>{_bars(tally.groups)}<td>{top}</tr>"
    )


def _quarantine(report: Report) -> str:
    if not report.quarantined:
        return ""
    rows = "".join(
        f"<tr><td>{shown(part.reason)}<td>{shown(part.field)}<td class=n>{part.rows:,}<td>"
        + "<br>".join(
            f"<code>{shown(sample.value)}</code> <small>{shown(sample.where)}"
            f"{', from ' + shown(sample.origin) if sample.origin else ''}</small>"
            for sample in part.samples
        )
        + "</tr>"
        for part in report.quarantined
    )
    return f"<h2>Quarantine</h2><table><tr><th>reason<th>field<th>rows<th>such as</tr>{rows}</table>"


def shown(text: str) -> str:
    """Text as markup that shows it as it is; whichever way its letters run, what stands around them does not turn."""
    return f"<bdi>{plain(text)}</bdi>"


def plain(text: str) -> str:
    return escape(printable(text))


def _bars(groups: Sequence[int]) -> str:
    """Missing, unseen, then the values joined to at most ``_BARS`` bars."""
    values = [int(part.sum()) for part in np.array_split(np.array(groups[2:]), min(_BARS, max(1, len(groups) - 2)))]
    counts = [*groups[:2], *values]
    high = max(*counts, 1)
    bars = [
        f"<rect{' class=odd' if at < 2 else ''} x='{4 * at}' width='3' y='{40 - 40 * count / high:.1f}' "
        f"height='{40 * count / high:.1f}'/>"
        for at, count in enumerate(counts)
    ]
    return f"<svg width='{4 * len(counts)}' height='40' role='img'>{''.join(bars)}</svg>"


def _days(report: Report) -> str:
    days = report.days
    if len(days) < 2:
        return ""
    high = max(*(day.rate for day in days), 1e-12)
    step = min(60.0, 900 / (len(days) - 1))
    points = [(8 + step * at, 108 - 100 * day.rate / high) for at, day in enumerate(days)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3'>"
        f"<title>{plain(day.day)}: {day.rate:.3%} of {day.rows:,}</title></circle>"
        for (x, y), day in zip(points, days, strict=True)
    )
    first, last = days[0], days[-1]
    return (
        f"<h2>Label rate by day</h2><svg width='{points[-1][0] + 10:.0f}' height='116'>"
        f"<polyline points='{line}'/>{dots}</svg><p><small>{shown(first.day)} {first.rate:.3%} to "
        f"{shown(last.day)} {last.rate:.3%}; the top is {high:.3%}.</small></p>"
    )
