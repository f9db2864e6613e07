"""The data report as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldwise.features.report.chart import Line, Picture, chart, columns
from fieldwise.features.report.markup import render
from fieldwise.features.report.report import Day, FieldReport, Report, bucket_advice

PAGE = "report.html"
_BARS = 60
"""Bars a field's distribution is drawn with."""
_TOP = 5
"""Most frequent values that are shown."""
_FAR = 0.25
"""Drift beyond chance that is marked."""


def page(report: Report, title: str) -> str:
    """Fields in a table with their distributions, the label rate by day, and what moved."""
    return render(
        Path(__file__).with_name("page.html"),
        title=title,
        report=report,
        rate=report.distribution.label[1] / max(1, sum(report.distribution.label)),
        days=_days(report.days),
        fields=[_field(report, name, field) for name, field in report.fields.items()],
    )


def _field(report: Report, name: str, field: FieldReport) -> dict[str, Any]:
    """What the page says of one."""
    tally, n = field.tally, max(1, field.tally.values)
    shift = None if report.drift is None else report.drift.fields.get(name)
    return {
        "name": name,
        "kind": field.kind,
        "about": "≥" if field.overfull else "~" if field.buckets else "",
        "distinct": field.distinct,
        "missing": tally.missing / n,
        "unseen": tally.unseen / n,
        "used": tally.used,
        "buckets": field.buckets,
        "advice": "" if field.buckets is None else bucket_advice(field),
        "shift": shift,
        "far": shift is not None and shift.excess > _FAR,
        "columns": _columns(name, tally.groups),
        "top": [
            (text[:40], value.count / n, value.positives / value.count)
            for text, value in list(zip(field.top, tally.top, strict=False))[:_TOP]
        ],
    }


def _columns(name: str, groups: Sequence[int]) -> Picture:
    """Missing, unseen, then the values joined to at most ``_BARS`` columns."""
    values = [int(part.sum()) for part in np.array_split(np.array(groups[2:]), min(_BARS, max(1, len(groups) - 2)))]
    return columns(f"Distribution of {name}", [*groups[:2], *values], odd=2)


def _days(days: Sequence[Day]) -> list[Picture]:
    if len(days) < 2:
        return []
    at, names = [float(n) for n in range(len(days))], [day.day for day in days]
    rate = Line("", at, [100 * day.rate for day in days], dots=True)
    rows = Line("", at, [float(day.rows) for day in days], dots=True)
    return [
        chart("Label rate by day", "day", "positives, %", [rate], names=names),
        chart("Rows by day", "day", "rows", [rows], names=names, zero=True),
    ]
