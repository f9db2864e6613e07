"""Side tables: which of their columns is the key, and which of the log's holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.errors import InputError
from fieldwise.features.words import some
from fieldwise.pipelines.init.guess.columns import Column, columns_of, shown, words_of
from fieldwise.pipelines.init.sample import Sample
from fieldwise.pipelines.score.names import name_column

_FEW = 10
"""Values below which a column of the log is no key of a table of many more."""
LEAST_MET = 0.5
"""Share of the log's rows that must find their key."""


@dataclass(frozen=True)
class Side:
    """A side table, its key named as in the log."""

    sample: Sample
    columns: Mapping[str, Column]
    key: str
    reason: str


@dataclass(frozen=True)
class Match:
    """A column of the log and the key of a side table that it holds."""

    log: str
    side: str
    met: float
    """Share of the log's rows whose value is a key."""
    used: float
    """Share of the keys that occur."""

    @property
    def words(self) -> str:
        return f"{self.met:.1%} of the rows find their key, {self.used:.0%} of the keys occur"


def match(log: Mapping[str, Column], side: Sample, words: Sequence[str], option: str) -> Match:
    """The best pair of columns. InputError where the log holds no key of the table."""
    columns = columns_of(side.table, side.total, side.opening.names)
    keys = [column for column in columns.values() if _unique(column)]
    found = [
        (_weight(one, words), one)
        for key in keys
        for column in _called_so(log, key, words) or log.values()
        if (one := _match(column, key))
    ]
    _, best = max(found, key=lambda pair: pair[0], default=(0.0, None))
    if best is None or best.met < LEAST_MET:
        path, met = ", ".join(side.opening.config.path), "" if best is None else f"; {best.words}"
        nearest = "" if best is None else f"; nearest is {shown(best.side)!r} for the log's {shown(best.log)!r}{met}"
        raise InputError(
            option,
            expected=f"a column of {path} with a value once in every row, which most rows of the log hold, too",
            found=f"keys {some([shown(key.name) for key in keys]) or 'none: every column repeats a value'}{nearest}",
            fix="Write the ids in both files alike (no leading zeros, no `.0`), each once in the side table."
            if keys
            else f"Leave one row for each key: {_repeated(columns)}.",
        )
    return best


def _called_so(log: Mapping[str, Column], key: Column, words: Sequence[str]) -> list[Column]:
    """The log's columns that have the key's name, where it says whose key it is: no other holds it then."""
    called = words_of(key.name)
    return [one for one in log.values() if words_of(one.name) == called and any(word in words for word in called)]


def _unique(column: Column) -> bool:
    return not column.is_list and 0 < column.distinct == int(column.set.sum()) == column.rows


def _repeated(columns: Mapping[str, Column]) -> str:
    """The values that come again in the column that is nearest to a key."""
    column = max(columns.values(), key=lambda each: 0 if each.is_list else each.distinct)
    again = [shown(str(column.values[at])) for at in np.flatnonzero(column.counts > 1)[:3].tolist()]
    return f"of {shown(column.name)!r} {', '.join(map(repr, again))} come again" if again else "none has values"


def _match(column: Column, key: Column) -> Match | None:
    """How far the values of a log's column are keys."""
    if column.is_list or not column.distinct or pa.types.is_boolean(column.kind):
        return None
    if column.distinct < _FEW and key.distinct > _FEW * column.distinct / 2:
        return None  # answers and grades are numbers that ids from 0 on have, too
    values, keys = (each.values.cast(pa.large_string()) for each in (column, key))
    known = np.asarray(pc.is_in(values, value_set=keys))
    met = float(column.counts[known].sum() / column.rows)
    return Match(column.name, key.name, met, float(known.sum() / len(keys)))


def _weight(found: Match, words: Sequence[str]) -> float:
    """How likely a match is meant: ids from 1 on are in the larger ones, so how many of the keys occur counts, too."""
    named = found.log == found.side or words_of(found.log) == words_of(found.side)
    role = any(word in words for word in words_of(found.log))
    return found.met + found.used + 0.5 * named + 0.25 * role


def with_key(side: Sample, found: Match, key: str) -> Side:
    """The table with its key called as the log's. InputError where its format names columns that cannot be renamed."""
    names = {found.side: key} if found.side != key else {}
    renamed = rename(side, names) if names else side
    return Side(renamed, columns_of(renamed.table, renamed.total, renamed.opening.names), key, found.words)


def rename(sample: Sample, names: Mapping[str, str]) -> Sample:
    """A sample of csv or tsv with other names for some columns; its config then names all of them by position."""
    opening = sample.opening
    if opening.config.format not in ("csv", "tsv"):
        old, new = next(iter(names.items()))
        raise InputError(
            ", ".join(opening.config.path), expected=f"a key called {new!r}, as in the log", found=f"it called {old!r}",
            fix=f"Rename the column: a {opening.config.format} source names its own.",
        )  # fmt: skip
    every = tuple(names.get(name, name) for name in opening.names)
    every = tuple(name if every.count(name) == 1 or name in names.values() else f"{name}_" for name in every)
    config = opening.config.model_copy(update={"columns": list(every), "header": opening.named})
    table = sample.table.rename_columns([*every, *sample.table.schema.names[len(every) :]])
    return replace(sample, opening=replace(opening, config=config, names=every), table=table)


def hidden(side: Side, taken: Sequence[str]) -> list[str]:
    """Columns of a table that are called as others: only one of them can be read."""
    return [name for name in side.columns if name in taken and name != side.key]


def title_of(side: Side, left: Sequence[str]) -> str | None:
    """The column that names the rows, among those that are no fields, where no word in its own name says so."""
    if name_column(list(side.columns), side.key) is not None:
        return None
    able = [side.columns[name] for name in left if name in side.columns]
    texts = (one for one in able if one.readable and not (one.is_list or one.numeric or one.formats))
    return next((one.name for one in texts if one.distinct > one.rows / 2), None)
