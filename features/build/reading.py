"""How a task reads its rows: a byte range through the log reader, then the split and negative downsampling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fieldwise.features.build.split import TRAIN, Roles, Splitter, kept_negatives
from fieldwise.features.columns.moment import HOUR, TimeConfig, to_local
from fieldwise.features.config import FeatureConfig
from fieldwise.features.engine.base import Shared
from fieldwise.features.fields.base import Problem, all_but, first_of_rows
from fieldwise.features.snapshot.beside import Texts
from fieldwise.features.snapshot.manifest import ROLES
from fieldwise.features.source.log import LogBatch, LogReader
from fieldwise.features.source.negatives import Negatives
from fieldwise.features.source.rows import FileRange, Reject

Counts = Counter[tuple[str, ...]]
"""("rows", role), ("positives", role), ("filtered",), ("dropped_negatives",),
("undrawn",): negatives that could not be drawn,
("rejected", reason, field), ("unencodable", reason, field): of the rows, those a first pass knows the encoder will
reject, ("read", path): all rows of a source file, whatever became of them, ("joined", table): rows that found their
key, ("day", day, role), ("day_positives", day, role), ("hour", hour of the day), ("example", JSON of an
``Example``)."""


@dataclass(frozen=True)
class Job:
    """What every task must know to read its rows."""

    config: FeatureConfig
    reader: Shared[LogReader]
    files: tuple[str, ...]
    ranges: tuple[FileRange, ...]
    bytes: int
    """Of all files, as stored."""
    splitter: Splitter
    base: str = ""
    """Where relative paths start."""
    negatives: Shared[Negatives] | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether every line that can be read becomes a row of role ``all``."""
        config = self.config
        as_read = config.snapshot.negative_rate is None and config.negatives is None
        return config.split.by == "none" and as_read and self.reader.value.keeps_all


@dataclass
class Findings:
    """What a task has to say besides its rows."""

    counts: Counts = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)
    """The first and the last; empty without any."""
    values: Texts = field(default_factory=list)
    """Of columns beside the rows."""

    def reject(self, rejects: Iterable[Reject]) -> None:
        for reject in rejects:
            self.counts["rejected", reject.reason, reject.field] += 1
            self.rejects.append(reject)

    def foresee(self, batch: LogBatch, problems: Iterable[Problem]) -> npt.NDArray[np.bool_]:
        """Say which rows the encoder will reject, in case the job stops before that; True for the others.

        They still count as rows: the number of files must not depend on who looked.
        """
        first = first_of_rows(problems)
        for reject in map(batch.reject, first.values()):
            self.counts["unencodable", reject.reason, reject.field] += 1
            self.rejects.append(reject)
        return all_but(first, batch.rows)

    def count_roles(self, batch: LogBatch, roles: Roles) -> None:
        assert batch.label is not None
        for role, name in enumerate(ROLES):
            mine = roles == role
            if mine.any():
                self.counts["rows", name] += int(np.count_nonzero(mine))
                self.counts["positives", name] += int(np.count_nonzero(batch.label[mine]))

    def count_days(self, batch: LogBatch, roles: Roles, time: TimeConfig | None) -> None:
        """Rows and positives by day in the zone of ``time`` and role, rows by hour, the first and the last moment;
        nothing for a log without time."""
        if time is None or not batch.rows:
            return
        assert batch.time is not None
        self.moments = span([*self.moments, int(batch.time.min()), int(batch.time.max())])
        assert batch.label is not None
        days, hours = np.divmod(to_local(batch.time, time.zone) // HOUR, 24)
        self.counts.update({("hour", str(hour)): int(count) for hour, count in enumerate(np.bincount(hours))})
        keys = days * len(ROLES) + roles
        for name, found in (("day", keys), ("day_positives", keys[batch.label > 0])):
            for key, count in zip(*np.unique(found, return_counts=True), strict=True):
                day, role = divmod(int(key), len(ROLES))
                self.counts[name, str(np.datetime64(day, "D")), ROLES[role]] += int(count)


def span(moments: Sequence[int]) -> list[int]:
    """The first and the last of moments, if there are any."""
    return [min(moments), max(moments)] if moments else []


def read_log(job: Job, index: int, findings: Findings) -> Iterator[LogBatch]:
    """The rows of one range, before split and sampling."""
    for batch in job.reader.value.read(job.ranges[index]):
        findings.counts["filtered",] += batch.filtered
        for table, met in batch.joined.items():
            findings.counts["joined", table] += met
        findings.reject(batch.rejects)
        findings.counts["read", batch.path] += batch.rows + batch.filtered + len(batch.rejects)
        if batch.rows:
            yield batch


def read_rows(job: Job, index: int, findings: Findings) -> Iterator[tuple[LogBatch, Roles]]:
    """The rows of one range with their roles, without the negatives that sampling drops, with those that are drawn."""
    rate = job.config.snapshot.negative_rate
    for batch in read_log(job, index, findings):
        roles = job.splitter.of_rows(batch.columns, batch.time, batch.path)
        if rate is not None:
            assert batch.label is not None
            drawn = kept_negatives(rate, job.files.index(batch.path), batch.positions)
            keep = drawn | (roles != TRAIN) | (batch.label > 0)
            findings.counts["dropped_negatives",] += int(np.count_nonzero(~keep))
            batch, roles = batch.take(keep), roles[keep]
        if batch.rows:
            yield batch, roles
        if batch.rows and job.negatives is not None:
            assert batch.label is not None
            negatives = job.negatives.value
            negative, positive = negatives.rows(job.reader.value, batch, job.files.index(batch.path))
            findings.reject(negative.rejects)
            wanted = negatives.config.per_positive * int(np.count_nonzero(batch.label > 0))
            findings.counts["undrawn",] += wanted - negative.rows
            if negative.rows:
                yield negative, roles[positive]
