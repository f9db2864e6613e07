"""What is said of rows that cannot be used: how many, for which field and reason, with samples and their places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from fieldwise.features.fields.base import Problem, text_at
from fieldwise.features.redact import redacted
from fieldwise.features.schema import Strict
from fieldwise.features.source.join import SideTable
from fieldwise.features.source.places import places
from fieldwise.features.source.rows import RawBatch, Reject
from fieldwise.features.terminal import printable

SAMPLES = 3
_SHOWN = 80
"""Characters of a value that people see."""


class Sample(Strict):
    """A value that could not be read."""

    value: str
    """Cut; the row itself where it does not parse."""
    where: str
    """File and line (row, in Parquet), both counted from 1; the byte, far into a file."""
    origin: str = ""
    """Side table and key, or config key, of a value that does not stand there itself."""

    def __str__(self) -> str:
        shown = f"'{printable(self.value)}'"
        return f"{shown} of {self.origin}, met at {self.where}" if self.origin else f"{shown} at {self.where}"


class Quarantined(Strict):
    """Rows set aside for one field and reason."""

    reason: str
    field: str
    """Empty where a row does not parse."""
    rows: Annotated[int, Field(ge=0)]
    samples: list[Sample]
    """The first ones, of different values if there are as many."""

    def __str__(self) -> str:
        what = f"{self.reason} of {self.field}" if self.field else self.reason
        rows = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        return f"{what}: {rows}, such as {', '.join(map(str, self.samples))}"


class Example(NamedTuple):
    """A sample before its line is known. Travels as JSON."""

    reason: str
    field: str
    path: str
    position: int
    value: str
    origin: str


class Origins:
    """Where values come from: raw columns by field, side tables by column, and ``fixed`` columns of the config.

    Args:
        fields: raw columns by the names that problems use.
        fixed: config key by column.
    """

    def __init__(
        self, fields: Mapping[str, Sequence[str]], tables: Iterable[SideTable], fixed: Mapping[str, str] | None = None
    ) -> None:
        self._fields = dict(fields)
        self._tables = {name: (table.path, table.on) for table in tables for name in table.names}
        self._fixed = dict(fixed or {})

    def reject(self, raw: RawBatch, problem: Problem) -> Reject:
        """The row of a problem as quarantine takes it."""
        row = problem.row
        columns = [problem.column] if problem.column else self._fields.get(problem.field, ())
        texts = {column: text_at(raw.columns, column, row) for column in columns}
        many = ", ".join(f"{column}={text}" for column, text in texts.items())
        value = problem.value or ("".join(texts.values()) if len(texts) == 1 else many)
        origins = dict.fromkeys(self._origin(raw, column, row) for column in columns)
        return Reject(
            raw.path, int(raw.positions[row]), problem.reason, problem.field, raw.raw(row), value,
            " and ".join(origin for origin in origins if origin),
        )  # fmt: skip

    def _origin(self, raw: RawBatch, column: str, row: int) -> str:
        if column in self._fixed:
            return self._fixed[column]
        if column not in self._tables:
            return ""
        path, key = self._tables[column]
        return f"{path} (column {column}, {key} = {text_at(raw.columns, key, row)})"


def examples(rejects: Iterable[Reject]) -> list[Example]:
    """The first rejects for each reason and field, of different values if there are as many."""
    found = (
        Example(
            r.reason,
            r.field,
            r.path,
            r.position,
            r.value if r.value or (r.reason.startswith("bad_") and r.field) else r.raw[:200].decode("utf-8", "replace"),
            r.origin,
        )
        for r in rejects
    )
    return _first(found)


def _first(found: Iterable[Example]) -> list[Example]:
    """``SAMPLES`` of each reason and field: of different values if there are as many, in the order of ``found``."""
    new: dict[tuple[str, str], dict[str, Example]] = {}
    again: dict[tuple[str, str], list[Example]] = {}
    for example in found:
        key = example.reason, example.field
        values, repeated = new.setdefault(key, {}), again.setdefault(key, [])
        if len(values) < SAMPLES and example.value not in values:
            values[example.value] = example
        elif len(values) < SAMPLES and len(repeated) < SAMPLES:
            repeated.append(example)
    return [example for key, values in new.items() for example in [*values.values(), *again[key]][:SAMPLES]]


def count(rejects: Iterable[Reject]) -> Counter[tuple[str, str]]:
    """Rows by reason and field."""
    return Counter((reject.reason, reject.field) for reject in rejects)


def by_reason(rows: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Of rows by reason and field."""
    reasons: Counter[str] = Counter()
    for (reason, _), n in sorted(rows.items()):
        reasons[reason] += n
    return dict(reasons)


def quarantined(
    rows: Mapping[tuple[str, str], int], found: Iterable[Example], formats: str | Callable[[str], str]
) -> list[Quarantined]:
    """Most rows first.

    Args:
        rows: by reason and field.
        found: ``examples`` of parts, in any order.
        formats: of the source, to tell lines from rows; by path where there are several.
    """
    kept = _first(sorted(found, key=lambda example: (example.path, example.position)))
    format_of = formats if callable(formats) else lambda _: formats
    where = dict(places({(e.path, e.position) for e in kept}, format_of))
    samples: dict[tuple[str, str], list[Sample]] = {}
    for e in kept:
        place, origin = redacted(where[e.path, e.position]), redacted(e.origin)
        sample = Sample(value=e.value[:_SHOWN], where=place, origin=origin)
        samples.setdefault((e.reason, e.field), []).append(sample)
    ordered = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    return [
        Quarantined(reason=reason, field=field, rows=n, samples=samples.get((reason, field), []))
        for (reason, field), n in ordered
    ]
