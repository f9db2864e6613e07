"""Texts that are no moments of a log: what they read as, and which format they were probably written in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import pyarrow as pa

from fieldwise.features.columns.expression import quoted
from fieldwise.features.columns.moment import DAY, EPOCHS, TimeConfig, show_moment
from fieldwise.features.columns.text import moments, moments_of_any_year, numbers
from fieldwise.features.fields.time import TimeField
from fieldwise.features.source.quarantine import Quarantined
from fieldwise.features.terminal import printable

_CLOCK = ("", " %H:%M", " %H:%M:%S")
_FORMATS = (
    "auto", *EPOCHS, "%Y%m%d", "%y%m%d", "%Y%m%d%H", "%y%m%d%H", "%Y%m%d%H%M", "%y%m%d%H%M", "%Y%m%d%H%M%S",
    "%y%m%d%H%M%S", "%d-%b-%Y", "%d/%b/%Y:%H:%M:%S %z",
    *(date + clock for date in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y",
                                "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d-%b-%y") for clock in _CLOCK),
)  # fmt: skip
"""Formats that are tried, the likelier first where digits read in several."""
_EXCEL = 25_569
"""Day 0 of 1970 in the serial days of spreadsheets."""


def remedies(found: Iterable[Quarantined], time: TimeConfig | None, fields: Iterable[object]) -> list[str]:
    """For each column whose moments were quarantined: what its samples read as, and what the user can do."""
    configs = {field.name: field.of for field in fields if isinstance(field, TimeField)}
    configs |= {"time": time} if time is not None else {}
    told: dict[TimeConfig, str] = {}
    for part in found:
        config = configs.get(part.field)
        if part.reason == "bad_time" and config is not None and config not in told:
            key = "time" if config == time else f"fields.{part.field}.of"
            told[config] = remedy([s.value for s in part.samples], config, key)
    return [words for words in told.values() if words]


def remedy(values: Sequence[str], config: TimeConfig, key: str = "time") -> str:
    """One or two sentences; empty where nothing is known of the values."""
    values = [value for value in values if value]
    values = [value for value in values if value.strip("0")] or values[:1]  # a zero is no moment in any format
    read = {value: moment for value in values for moment in _moment(value, config)}
    guesses = _guesses(values, config) if values else []
    if not values:
        return (
            f"Leave rows without a moment out: `filter: {quoted(config.column)} is not null`." if key == "time" else ""
        )
    if not read and not guesses:
        known = "write such moments as ISO 8601, 2026-01-31 18:00:00"
        return f"'{printable(values[0])}' reads in no format that is known here: {known}."
    first = next(iter(read), values[0])
    reads = f"reads as {show_moment(read[first], config.zone)}" if first in read else "is no moment"
    words = f"'{printable(first)}' {reads} under {key}.format {config.format}"
    words += f": expected a moment from {config.earliest} to {config.latest}." if read else "."
    if guesses:
        words += f" Set {key}.format to {' or '.join(guesses)} if that is how they are written."
    elif _serial_days(values):
        words += " These may be a spreadsheet's serial days: write them as ISO 8601."
    if read:
        words += f" If such moments are meant, move {key}.earliest or {key}.latest."
    return words


def _moment(value: str, config: TimeConfig) -> Iterator[int]:
    """What a value reads as, in the years from 2 to 9999 that Python can show in any zone."""
    out, missing, bad = moments_of_any_year(pa.array([value]), config)
    if not (missing | bad)[0] and -718_000 * DAY < int(out[0]) <= 2_932_896 * DAY:
        yield int(out[0])


def _guesses(values: Sequence[str], config: TimeConfig) -> list[str]:
    """At most two formats under which all values lie within the bounds."""
    column = pa.array(values)
    tried = (f for f in _FORMATS if f != config.format)
    found = [f for f in tried if not moments(column, config.model_copy(update={"format": f}))[2].any()]
    return found[:2]


def formats(values: pa.Array, most_bad: float = 0.0) -> list[str]:
    """Formats under which all but a share of ``most_bad`` of some texts lie within the default bounds, the likelier
    first; none for no texts."""
    tried = _FORMATS if len(values) else ()
    return [f for f in tried if moments(values, TimeConfig(column="", format=f))[2].mean() <= most_bad]


def _serial_days(values: Sequence[str]) -> bool:
    days, bad = numbers(pa.array(values))
    return not bad.any() and bool((abs(days - (_EXCEL + 18_000)) < 18_000).all())


def dates_in_digits(*when: datetime) -> str | None:
    """A format of dates in digits under which moments that were read as epoch seconds are moments, too.

    2014102100 is a moment of 2033 as epoch seconds. By chance one moment in two hundred reads as such a date.
    """
    digits = pa.array([str(int(moment.timestamp())) for moment in when])
    for format in ("%Y%m%d%H", "%y%m%d%H%M"):
        if not moments(digits, TimeConfig(column="", format=format))[2].any():
            return format
    return None
