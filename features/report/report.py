"""The data report: what a snapshot's fields and labels look like, for people and for comparison with later days.

It follows from the snapshot's files, so it has no part in the digest. Fields are counted by local index (``Tally``),
each by itself, so memory is that of one field's table rows; see ``features.build.counting``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import FailFast, Field

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.fields.spec import FeatureSpec, FittedField
from fieldwise.features.kernels.counts import sum_groups
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.report.drift import Counts, Distribution, Drift, group_starts
from fieldwise.features.schema import Strict
from fieldwise.features.source.quarantine import Quarantined
from fieldwise.features.store import bounded

REPORT = "report.json"
TOP = 10
COLLIDED = 0.01
"""Share of values in company that the suggested number of buckets keeps below."""
WORTH_IT = 20
"""Rows a value from which on a row of the table of its own can be learned."""

Count = Annotated[int, Field(ge=0)]
Numbers = npt.NDArray[np.int32] | npt.NDArray[np.int64]


class Value(Strict):
    """One local index, its values and the positives among them."""

    index: Annotated[int, Field(ge=FIRST)]
    count: Count
    positives: Count


class Tally(Strict):
    """A field's counts over the rows of a snapshot; lists count every value."""

    values: Count
    """Slots that are not padding: the rows, for a field of one value."""
    missing: Count
    """Rows whose value was null or empty, or whose list held none."""
    unseen: Count
    """Values the spec does not hold."""
    used: Count
    """Distinct local indices of values."""
    top: Annotated[list[Value], FailFast()]
    """The most frequent ones."""
    groups: Counts
    """Of the rows that training may see, by ``drift.group_starts``; negatives before downsampling."""


class Buckets(Strict):
    """How a hashed field fills its buckets."""

    buckets: Annotated[int, Field(ge=1)]
    collided: Annotated[float, Field(ge=0, le=1)]
    """Expected share of the distinct values that share their bucket with another."""
    suggested: Annotated[int, Field(ge=1)]
    """Smallest power of two that keeps this share below 1 %. A vocabulary needs only as many rows as values."""


class FieldReport(Strict):
    """One field."""

    kind: str
    tally: Tally
    distinct: Count
    """Distinct values found: exact for vocabularies, bins and parts of time, estimated for hashed fields."""
    buckets: Buckets | None
    top: Annotated[list[str], FailFast()]
    """What the most frequent values mean."""

    @property
    def overfull(self) -> bool:
        """Whether no bucket is empty, so that ``distinct`` is the least it can be."""
        return self.buckets is not None and self.tally.used == self.buckets.buckets


class Day(Strict):
    """Rows of one day of the log (in the zone of ``time``)."""

    day: str
    rows: Count
    positives: Count
    rate: float
    """Share of positives before downsampling."""
    trained: Count | None = None
    """Rows with role train or all; None in older reports."""
    valid: Count | None = None
    """Rows by which training was stopped and its settings chosen; None in older reports."""


class Report(Strict):
    """All of it."""

    format_version: Literal[1] = 1
    rows: Count
    fields: dict[str, FieldReport]
    days: Annotated[list[Day], FailFast()]
    """Empty for a log without ``time``."""
    moments: Annotated[tuple[str, ...], FailFast()] = ()
    """The first and the last, ISO 8601 in the zone of ``time``; empty without it, or in older reports."""
    hours: Annotated[tuple[Count, ...], FailFast()] = ()
    """Rows of each hour of the day in the zone of ``time``; empty without it, or in older reports."""
    repeated: Count | None = None
    """Rows that equal another one in slots, label and weight; None without the shuffle, or in older reports."""
    quarantined: Annotated[tuple[Quarantined, ...], FailFast()] = ()
    """Rows set aside, by field and reason."""
    distribution: Distribution
    drift: Drift | None
    """Against the rows the spec was fitted on; none for these rows themselves, or where they are not known."""

    def save(self, path: str) -> None:
        store.write_atomic(path, (self.model_dump_json(indent=1) + "\n").encode())

    @staticmethod
    def load(path: str) -> Report:
        """Raises ArtifactError when there is none or it does not read as one."""
        fix = "Build the snapshot again with --replace."
        try:
            return bounded.validated(bounded.read(path, fix=fix), Report, path, "a data report of format 1", fix)
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(path, expected="a data report", found="no such file", fix=fix) from None


def tally_field(field: FittedField, training: Numbers, held_out: Numbers | None, negative_rate: float | None) -> Tally:
    """From counts [size, 2] by local index and label, of the rows that training may see and of the others if any."""
    counts = training if held_out is None else training + held_out
    starts = group_starts(field)
    groups, top = np.zeros((len(starts), 2), np.int64), np.zeros(TOP, np.int64)
    used = sum_groups(counts, starts, groups, top)
    missing, unseen = groups[0].sum(), groups[1].sum()
    values = groups.sum()
    if held_out is not None:
        groups[:] = 0
        sum_groups(training, starts, groups, np.zeros(TOP, np.int64))
    expected = groups[:, 1] + np.rint(groups[:, 0] / (negative_rate or 1.0)).astype(np.int64)
    return Tally(
        values=int(values),
        missing=int(missing),
        unseen=int(unseen),
        used=used,
        top=[Value(index=int(i), count=int(counts[i].sum()), positives=int(counts[i, 1])) for i in top if i],
        groups=expected.tolist(),
    )


def day(name: str, rows: Mapping[str, int], positives: Mapping[str, int], rates: Mapping[str, float]) -> Day:
    """From rows and positives by role; ``rates`` are shares of negatives kept, 1 where not given."""
    clicks = sum(positives.values())
    before = clicks + sum((count - positives[role]) / rates.get(role, 1.0) for role, count in rows.items())
    trained = rows.get("train", 0) + rows.get("all", 0)
    return Day(
        day=name,
        rows=sum(rows.values()),
        positives=clicks,
        rate=clicks / before,
        trained=trained,
        valid=rows.get("valid", 0),
    )


def field_report(spec: FeatureSpec, field: FittedField, tally: Tally) -> FieldReport:
    hashed = field.config.hashed
    distinct = distinct_values(tally.used, field.values) if hashed else tally.used
    buckets = None
    if hashed:
        collided = collided_share(distinct, field.values)
        buckets = Buckets(buckets=field.values, collided=collided, suggested=suggested_buckets(distinct))
    top = [spec.value_of(field.name, value.index) for value in tally.top]
    return FieldReport(kind=field.kind, tally=tally, distinct=distinct, buckets=buckets, top=top)


def distinct_values(used: int, buckets: int) -> int:
    """-m ln(empty share of the m buckets): linear counting, with the field's own buckets as the bitmap.

    Standard error sqrt(m (exp(t) - t - 1)) values at t values a bucket. With no bucket empty, m ln m: at least that
    many. (K.-Y. Whang, B. T. Vander-Zanden and H. M. Taylor, A linear-time probabilistic counting algorithm for
    database applications, ACM TODS 15(2), 1990.)
    """
    empty = max(1, buckets - used)
    return max(used, round(-buckets * math.log(empty / buckets)))


def collided_share(distinct: int, buckets: int) -> float:
    """Expected share of n values with company in one of m buckets: 1 - (1 - 1/m)^(n - 1), the birthday formula."""
    return 0.0 if distinct < 2 else 1.0 - (1.0 - 1.0 / buckets) ** (distinct - 1)


def suggested_buckets(distinct: int) -> int:
    """Smallest power of two with a collided share of at most ``COLLIDED``."""
    buckets = 1
    while collided_share(distinct, buckets) > COLLIDED:
        buckets *= 2
    return buckets


def bucket_advice(field: FieldReport) -> str:
    """Whether to give a hashed field the suggested buckets; empty where it has enough."""
    buckets, distinct = field.buckets, max(1, field.distinct)
    if buckets is None or buckets.collided <= COLLIDED:
        return ""
    rows = (field.tally.values - field.tally.missing) / distinct
    if field.overfull or distinct > buckets.buckets:
        return f"too few: every bucket holds several values; {_double(distinct):,} or more"
    if rows < WORTH_IT:
        return f"leave it: {rows:.1f} rows a value are too few to learn it from, so company costs next to nothing"
    if buckets.buckets >= _double(distinct):
        return f"worth a try if memory allows: {rows:,.0f} rows a value"
    return f"worth it: {rows:,.0f} rows a value; {_double(distinct):,} do most of it"


def _double(distinct: int) -> int:
    """Two buckets a value, as a power of two."""
    return 1 << (2 * distinct - 1).bit_length()


def table(report: Report) -> list[str]:
    """Lines for people."""
    moved = report.drift
    lines = [
        f"  {'field':<20} {'kind':<10} {'distinct':>11} {'missing':>8} {'unseen':>8} {'collided':>9} "
        f"{'buckets for 1 %':>15}{'psi':>8}  most frequent"
    ]
    for name, field in report.fields.items():
        tally, buckets = field.tally, field.buckets
        n = max(1, tally.values)
        distinct = f"{'>=' if field.overfull else '~' if buckets else ''}{field.distinct:,}"
        first = f"{field.top[0][:24]} {tally.top[0].count / n:.1%}" if field.top else "none"
        lines.append(
            f"  {name:<20} {field.kind:<10} {distinct:>11} {tally.missing / n:>8.3%} {tally.unseen / n:>8.3%} "
            + (f"{buckets.collided:>9.1%} {buckets.suggested:>15,}" if buckets else f"{'':>25}")
            + (f"{moved.fields[name].psi:>8.3f}" if moved and name in moved.fields else f"{'-' if moved else '':>8}")
            + f"  {first}"
        )
    advice = {name: bucket_advice(field) for name, field in report.fields.items()}
    lines += [f"  buckets of {name}: {told}" for name, told in advice.items() if told]
    lines += _day_lines(report.days)
    if moved is not None:
        expected, found = moved.label_rate
        lines.append(
            f"  label rate {found:.4%}, expected {expected:.4%} (psi {moved.label.psi:.4f}) by {moved.against}"
        )
    return lines


def _day_lines(days: Sequence[Day], most: int = 10) -> list[str]:
    """The last days; earlier ones are in the report."""
    if len(days) < 2:
        return []
    lines = [f"  {day.day}  {day.rows:>12,} rows  {day.rate:>8.4%} positive" for day in days[-most:]]
    return ([f"  ({len(days) - most} earlier days)"] if len(days) > most else []) + lines
