"""When rows happened: the column of their moments and its format, and what looks like one and is not read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.moment import DAY, TimeConfig, show_moment
from fieldwise.pipelines.init.guess.columns import FEW_BAD, Column, shown
from fieldwise.pipelines.init.guess.ids import said_by
from fieldwise.pipelines.init.yaml_text import flow

TIMES = ("timestamp", "time", "ts", "datetime", "date", "when", "hour", "day", "at", "created", "moment")
_DATE = re.compile(
    r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .,-]+\d",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\b\d{1,2}[:.h]\d\d\b")


@dataclass(frozen=True)
class Moments:
    """When rows happened."""

    config: TimeConfig
    reason: str
    found: npt.NDArray[np.int64]
    """[rows] microseconds."""
    bad: npt.NDArray[np.bool_]

    @property
    def first(self) -> int:
        return int(self.found[~self.bad].min())

    @property
    def last(self) -> int:
        return int(self.found[~self.bad].max())

    @property
    def days(self) -> float:
        return (self.last - self.first) / DAY


def find_time(columns: Mapping[str, Column], named: bool, taken: Sequence[str]) -> Moments | None:
    """The column of moments: few rows lack one, and its name says so, or it has no name."""
    best: tuple[float, Moments] | None = None
    for name, column in columns.items():
        hint = said_by(name, TIMES)
        typed = pa.types.is_timestamp(column.kind) or pa.types.is_date(column.kind)
        loose = column.numeric and not hint and (named or not _epochs(column))
        if name in taken or column.distinct < 1 or column.missing > FEW_BAD or loose or not column.formats:
            continue
        found = _moments(column)
        spread = min(1.0, len(np.unique(found.found)) / 1000)
        weight = 3 * hint + 2 * typed + spread + (not column.numeric)
        if best is None or weight > best[0]:
            best = weight, found
    return None if best is None else best[1]


def unread_times(columns: Mapping[str, Column], taken: Sequence[str]) -> list[str]:
    """Columns of moments that read in no format that is known here."""
    found = []
    for name, column in columns.items():
        if name in taken or column.is_list or column.numeric or column.distinct < 2 or column.formats:
            continue
        texts = column.some(200)
        dated = sum(bool(_DATE.search(text) or _CLOCK.search(text)) for text in texts)
        moments = sum(bool(_DATE.search(text) and _CLOCK.search(text)) for text in texts)
        if moments >= 0.9 * len(texts) or (said_by(name, TIMES) >= 0.5 and dated >= 0.9 * len(texts)):
            found.append(name)
    return found


def misread_times(columns: Mapping[str, Column], taken: Sequence[str]) -> list[str]:
    """What to say of columns that are called like a time, whose values read as none."""
    return [
        f"{shown(name)}: CHECK: called like a time, but values such as {shown(column.top[0])!r} read in no format that "
        "is known here: write them as ISO 8601, 2026-01-31 18:00:00, and run init on that log: without a time the "
        "newest rows cannot test, and there is no hour"
        for name, column in columns.items()
        if said_by(name, TIMES) >= 0.5 and name not in taken and column.distinct > 1 and not column.is_list
        and not column.numeric and not column.formats and any(map(str.isdigit, column.top[0]))
    ]  # fmt: skip


def _epochs(column: Column) -> bool:
    """Whether numbers without a name may be seconds or milliseconds since 1970: of at least a hundred moments."""
    return column.whole and column.distinct >= 100 and bool(column.numbers.min() > 5e8)


def _moments(column: Column) -> Moments:
    """By the likeliest format; of two that only swap day and month, the one under which more rows follow each other in
    time, else the one of the shorter span."""
    chosen, others = column.formats[0], column.formats[1:]
    swapped = next((other for other in others if {chosen[:2], other[:2]} == {"%d", "%m"}), None)
    first, *second = sorted((_read(column, each) for each in (chosen, swapped) if each is not None), key=_disorder)
    low, high = (show_moment(moment, "UTC")[:19] for moment in (first.first, first.last))
    words = f"{low} to {high}, read as {first.config.format}"
    for other in second:
        block = flow({"column": column.name, "format": other.config.format})
        words += f"; CHECK: no day is above 12, so {other.config.format} reads them, too, but {_but(first, other)}. "
        words += f"If that is right, write `time: {block}`"
    alike = [other for other in others if other != swapped and other[:1] == "%" and chosen[:1] == "%"]
    words += f"; {' and '.join(alike[:2])} would read them, too: CHECK" if alike and not second else ""
    return replace(first, reason=words)


def _read(column: Column, format: str) -> Moments:
    config = TimeConfig(column=column.name, format=format)
    return Moments(config, "", *column.moments(config))


def _disorder(moments: Moments) -> tuple[float, float]:
    """Share of the rows that are before the row above them, to a tenth; days in all."""
    steps = np.diff(moments.found[~moments.bad])
    return round(float((steps < 0).mean()) if len(steps) else 0.0, 1), moments.days


def _but(first: Moments, other: Moments) -> str:
    """What speaks against the other format."""
    (disorder, days), (others, longer) = _disorder(first), _disorder(other)
    if disorder < others:
        return "then more rows are earlier than the one above them"
    return f"then the log spans {longer:.0f} days, not {days:.0f}" if days < longer else "the day first is more usual"
