"""The data report as one HTML page with pictures drawn in SVG: no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldwise.features.report import chart
from fieldwise.features.report.chart import plain, shown
from fieldwise.features.report.report import FieldReport, Report, bucket_advice

PAGE = "report.html"
_BARS = 60
"""Bars a field's distribution is drawn with."""

STYLE = (
    """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #999; --faint: #eee; --soft: #666; --far: #b00;
  --c0: #27a; --c1: #c62; --c2: #595; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181818; --line: #777; --faint: #333; --soft: #aaa;
  --far: #f77; --c0: #6bf; --c1: #f95; --c2: #8c8; } }
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }
.wide { overflow-x: auto; overflow-wrap: normal; }
pre { white-space: pre-wrap; background: var(--faint); padding: .6em; }
table { border-collapse: collapse; } th { text-align: left; border-bottom: 2px solid var(--line); }
th, td { padding: .35em .8em .35em 0; vertical-align: top; } tr + tr td { border-top: 1px solid var(--faint); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } small { color: var(--soft); }
.far { color: var(--far); font-weight: bold; } svg rect { fill: var(--c0); } svg rect.odd { fill: var(--c1); }
svg polyline { fill: none; stroke: var(--c0); stroke-width: 2; } svg circle { fill: var(--c0); }
@media (max-width: 600px) { body { margin: .6em 0; padding: 0 .7em; } h1 { font-size: 1.3em; } }
"""
    + chart.STYLE
)
"""Of all pages: what a chart does not colour itself stands before its own rules, which go over it."""


def head(title: str, more: str = "") -> str:
    """The begin of a page, which narrow screens show as wide as they are."""
    width = "<meta name=viewport content='width=device-width, initial-scale=1'>"
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'>{width}<title>{plain(title)}</title>"
        f"<style>{STYLE}{more}</style><h1>{shown(title)}</h1>"
    )


def page(report: Report, title: str) -> str:
    """Fields in a table with their distributions, the label rate by day, and what moved."""
    negatives, positives = report.distribution.label
    rate = positives / max(1, negatives + positives)
    parts = [
        head(title),
        f"<p>{report.rows:,} rows; of those for training {rate:.3%} positive (before downsampling).</p>",
        f"<p>First moment {shown(report.moments[0])}, last {shown(report.moments[1])}.</p>" if report.moments else "",
        _days(report),
        _quarantine(report),
        "<h2>Fields</h2><p>Bars: shares of missing and unseen values (orange), then of values in the order of their "
        "index, for training rows.</p><div class=wide><table>"
        "<tr><th>field<th>distinct<th>missing<th>unseen<th>collisions<th>drift"
        "<th>distribution<th>most frequent</tr>",
        *[_field(report, name, field) for name, field in report.fields.items()],
        "</table></div></html>\n",
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
    return (
        f"<h2>Quarantine</h2><div class=wide><table><tr><th>reason<th>field<th>rows<th>such as</tr>{rows}</table></div>"
    )


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
    line = chart.Line("", [float(at) for at in range(len(days))], [100 * day.rate for day in days], dots=True)
    first, last = days[0], days[-1]
    return (
        f"<h2>Label rate by day</h2>{chart.chart('Positives, in %, by day', 'days since the first', '%', [line])}"
        f"<p><small>{shown(first.day)} {first.rate:.3%} to {shown(last.day)} {last.rate:.3%}.</small></p>"
    )
