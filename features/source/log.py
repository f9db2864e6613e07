"""Raw rows to log rows: side tables joined, rows filtered, label, weight and time read, unusable rows rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date as Date
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.arrays import Bool, Float32, Int64
from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.day import day_of
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.moment import DAY, microseconds, to_local, to_utc
from fieldwise.features.config import FeatureConfig
from fieldwise.features.errors import InputError
from fieldwise.features.fields.base import Problem, all_but, first_of_rows
from fieldwise.features.source.join import SideTable
from fieldwise.features.source.quarantine import Origins
from fieldwise.features.source.raw import column_names, read_range
from fieldwise.features.source.rows import FileRange, RawBatch, Reject

Period = tuple[int, int]
"""Moments: the first, and the one past the last."""


@dataclass(frozen=True)
class LogBatch:
    """n usable rows in source order. rows = n + filtered + rejects of the range that was read."""

    raw: RawBatch
    """The rows with their raw and joined columns, positions and path."""
    label: Float32 | None
    weight: Float32 | None
    time: Int64 | None
    """Microseconds since 1970 UTC."""
    rejects: list[Reject]
    filtered: int
    origins: Origins
    joined: Mapping[str, int] = field(default_factory=dict)
    """Of the rows that were read and parsed: those that found their key in a side table, by its name."""

    @property
    def columns(self) -> Columns:
        return self.raw.columns

    @property
    def positions(self) -> Int64:
        return self.raw.positions

    @property
    def path(self) -> str:
        return self.raw.path

    @property
    def rows(self) -> int:
        return len(self.raw.positions)

    def reject(self, problem: Problem) -> Reject:
        """The row of a problem as quarantine takes it."""
        return self.origins.reject(self.raw, problem)

    def without(self, problems: Iterable[Problem]) -> LogBatch:
        """The batch with the rows of problems moved to ``rejects`` (a row once, for its first problem)."""
        first = first_of_rows(problems)
        if not first:
            return self
        return replace(self.take(all_but(first, self.rows)), rejects=[*self.rejects, *map(self.reject, first.values())])

    def take(self, keep: Bool) -> LogBatch:
        """The rows where ``keep`` holds; counts stay."""
        raw = self.raw
        line = None if raw.line is None else raw.line[keep]
        return LogBatch(
            replace(raw, columns=raw.columns.filter(keep), positions=raw.positions[keep], line=line),
            None if self.label is None else self.label[keep],
            None if self.weight is None else self.weight[keep],
            None if self.time is None else self.time[keep],
            self.rejects,
            self.filtered,
            self.origins,
            self.joined,
        )


class LogReader:
    """Reads ranges of a config's source as log rows. Picklable: side tables travel with it.

    Args:
        base: directory of the config file, where relative paths start.
        need_label: False for rows still to be scored: neither label nor weight are read.
        date: only rows of this day (``YYYY-MM-DD``) in the zone of ``time``; others count as filtered.
        period: only rows from its first moment to before its last, in place of ``date``.
        keep: further raw columns to read, such as ids to hand through.
    """

    def __init__(
        self,
        config: FeatureConfig,
        base: str,
        need_label: bool = True,
        date: str | None = None,
        period: Period | None = None,
        keep: Iterable[str] = (),
    ) -> None:
        self.config = config
        self._tables = [SideTable(join, base) for join in config.join]
        self._filter = None if config.filter is None else Expression(config.filter, "filter")
        self._label = Expression(config.label, "label") if need_label else None
        self._weight = Expression(config.weight, "weight") if need_label and config.weight is not None else None
        self._period = period
        if date is not None and config.time is not None:
            self._period = _day(date, config.time.zone)
        self._wanted = self._columns(keep)
        self._keys = {table.on for table in self._tables}
        joined = {name for table in self._tables for name in table.names}
        self.columns = [name for name in self._wanted if name not in joined]
        """Raw columns read from the source."""
        self._lists = {name for field in config.fields for name in field.lists}
        self._origins = self._columns_of_problems()

    def _columns_of_problems(self) -> Origins:
        config = self.config
        read: dict[str, Sequence[str]] = {"time": () if config.time is None else (config.time.column,)}
        for name, expression in (("filter", self._filter), ("label", self._label), ("weight", self._weight)):
            read[name] = () if expression is None else expression.columns
        return Origins({field.name: field.columns for field in config.fields} | read, self._tables)

    @property
    def keeps_all(self) -> bool:
        """Whether no row is left out but those that cannot be read."""
        return self._filter is None and self._period is None

    @property
    def _needs_time(self) -> bool:
        """Rows that are only scored may lack their time, unless a day is chosen by it or a field reads it."""
        time = self.config.time
        read = {column for field in self.config.fields for column in field.columns}
        return time is not None and (self._label is not None or self._period is not None or time.column in read)

    def _columns(self, keep: Iterable[str]) -> list[str]:
        """Every column something reads, in first use."""
        names = [column for field in self.config.fields for column in field.columns]
        for expression in (self._filter, self._label, self._weight):
            names += expression.columns if expression is not None else ()
        if self._needs_time and self.config.time is not None:
            names.append(self.config.time.column)
        if self.config.split.key is not None and self._label is not None:
            names.append(self.config.split.key)
        names += [table.on for table in self._tables]
        return list(dict.fromkeys([*names, *keep]))

    def read(self, rng: FileRange) -> Iterator[LogBatch]:
        """Log rows of one range of the source."""
        if self._tables:
            self._refuse_hidden(rng.path)
        for raw in read_range(self.config.source, rng, self.columns, self._lists):
            yield self.finish(raw)

    def _refuse_hidden(self, path: str) -> None:
        """A wanted column must have one origin: the log or one side table."""
        origins = [name for table in self._tables for name in table.names]
        origins += [name for name in column_names(self.config.source, path) or [] if name not in self._keys]
        times = Counter(origins)
        for name in self._wanted:
            if times[name] > 1:
                raise InputError(
                    path,
                    expected=f"column {name!r} in the log or in one side table",
                    found="it in several",
                    fix="Leave it out of the join's `select`, or rename it.",
                )

    def finish(self, raw: RawBatch) -> LogBatch:
        """Joins, filters and reads label, weight and time of raw rows made anywhere."""
        columns, rejects, joined = raw.columns, raw.rejects, dict[str, int]()
        for table in self._tables:
            columns, joined[table.name] = table.add_to(columns, self._wanted)
        raw = replace(raw, columns=columns, rejects=[])
        batch = LogBatch(raw, None, None, None, rejects, 0, self._origins, joined)
        batch = self._filtered(batch)
        if self._needs_time:
            batch = self._timed(batch)
        if self._label is not None:
            batch = _number(batch, self._label, "label")
            if self._weight is not None:
                batch = _number(batch, self._weight, "weight")
        return batch

    def _filtered(self, batch: LogBatch) -> LogBatch:
        if self._filter is None:
            return batch
        values, bad = self._filter.evaluate(batch.columns)
        keep = _numpy(values) == 1 if pa.types.is_boolean(values.type) else _numpy(values) != 0
        keep &= ~np.isnan(_numpy(values))
        problems = _problems(bad, "filter", "bad_number")
        kept = batch.without(problems)
        passed = keep[~bad]
        return replace(kept.take(passed), filtered=batch.filtered + int((~passed).sum())) if not passed.all() else kept

    def _timed(self, batch: LogBatch) -> LogBatch:
        assert self.config.time is not None
        time, missing, bad = batch.columns.moments(self.config.time)
        batch = replace(batch, time=time).without(_problems(missing | bad, "time", "bad_time"))
        if self._period is None or batch.time is None:
            return batch
        keep = (batch.time >= self._period[0]) & (batch.time < self._period[1])
        return replace(batch.take(keep), filtered=batch.filtered + int((~keep).sum())) if not keep.all() else batch


def days_read(config: FeatureConfig, days: Sequence[str]) -> list[str]:
    """The days whose logs hold the rows of ``days``: with ``label_delay`` also those before the first."""
    first, last = Date.fromisoformat(days[0]), Date.fromisoformat(days[-1])
    period = period_of(config, days, dated=True)
    if period is not None and config.time is not None:
        local = to_local(np.array([period[0]], np.int64), config.time.zone)
        first = Date(1970, 1, 1) + timedelta(days=int(local[0] // DAY))
    return [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]


def period_of(config: FeatureConfig, days: Sequence[str], *, dated: bool) -> Period | None:
    """From the first day's start to the last one's end, ``label_delay`` earlier; None where files alone decide.

    Args:
        days: following one another; none for everything.
        dated: whether files hold a day each.
    """
    if not days or config.time is None or (dated and config.label_delay is None):
        return None
    late, zone = microseconds(config.label_delay) if config.label_delay else 0, config.time.zone
    return _day(days[0], zone)[0] - late, _day(days[-1], zone)[1] - late


def _day(date: str, zone: str) -> Period:
    """First and past-the-last moment of a day in a zone."""
    days = (day_of(date) - Date(1970, 1, 1)).days
    first, stop = to_utc(np.array([days * DAY, (days + 1) * DAY], np.int64), zone)
    return int(first), int(stop)


def _numpy(values: pa.Array) -> npt.NDArray[np.float64]:
    """float64 with NaN for null."""
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _number(batch: LogBatch, expression: Expression, name: str) -> LogBatch:
    """The batch with ``label`` in {0, 1} or ``weight`` 0 or a positive float32; other rows are rejected."""
    values, bad = expression.evaluate(batch.columns)
    number = _numpy(values)
    with np.errstate(over="ignore"):
        read = number.astype(np.float32)
    if name == "label":
        good, batch = (number == 0) | (number == 1), replace(batch, label=read)
    else:  # a weight that float32 cannot hold would be infinite, or nothing
        good, batch = np.isfinite(read) & (number >= 0) & ((read > 0) == (number > 0)), replace(batch, weight=read)
    return batch.without(_problems(bad | ~good, name, f"bad_{name}"))


def _problems(bad: Bool, field: str, reason: str) -> list[Problem]:
    return [Problem(int(row), field, reason, "") for row in np.flatnonzero(bad)]
