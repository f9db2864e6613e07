"""Which field a column becomes, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from fieldwise.features.columns.expression import quoted
from fieldwise.pipelines.init.guess.columns import QUANTITIES, Column, shown, words_of
from fieldwise.pipelines.init.guess.leaks import RARELY_AGAIN, is_row_number, leak
from fieldwise.pipelines.init.guess.times import Moments
from fieldwise.pipelines.init.yaml_text import flow, scalar

MOST_WORDS = 20_000
"""Distinct values that a vocabulary keeps; with more they are hashed."""
ROOM = 2
"""Buckets for each expected value: more make the table larger and the model hardly better."""
MOST_BUCKETS = 1 << 24
OFTEN = 8
"""Rows of the most frequent value without which a vocabulary's default of four may keep none."""
FEW_NUMBERS = 256
"""Whole numbers of a log of which each may have a row of its own."""
FEW_OF_A_SIDE = 20
"""The same of a side table, whose numbers are ages, prices and years."""
MOST_FIELDS = 64
"""An ffm's table and time grow with the number of fields, and with its square."""
MOST_VALUES = 16
MOST_TEXTS = 0.05
"""Share of the rows up to which texts among numbers stand for a missing one."""
_FEW_TEXTS = 5
LEAST_FLAGS = 3
"""Columns of 0 and 1 side by side that are one field of several values."""
CODES = ("id", "ids", "ip", "code", "zip", "zipcode", "postcode", "postal", "sku", "hash", "uuid", "key", "phone", "no",
         "index", "category", "cat")  # fmt: skip
DAY_NAMES = {"hour": 0.5, "weekday": 14.0}
"""Days that a log must span before a part of its moments says something."""


@dataclass(frozen=True)
class Field:
    """What is written below ``fields``."""

    name: str
    keys: dict[str, Any]
    """All but the name."""
    columns: tuple[str, ...]
    reason: str
    caution: str = ""
    """What its user should read first."""


@dataclass(frozen=True)
class Left:
    """A column that becomes no field."""

    column: str
    reason: str
    grave: bool = False
    """Whether its user should read this before anything else."""


def log_fields(
    columns: Mapping[str, Column], positive: np.ndarray | None, ids: Sequence[str]
) -> Iterator[Field | Left]:
    """Of the log's own columns.

    Args:
        columns: all but those of the label and the time.
        positive: the label by row, to find columns that tell it; None without any.
        ids: context and item.
    """
    for name, column in columns.items():
        told = None if positive is None else leak(column, positive)
        if told is not None:
            yield Left(name, f"LEAK: {told}. A row to be scored does not have it yet", grave=True)
        else:
            yield field_of(column, is_id=name in ids)


def side_fields(columns: Mapping[str, Column], key: str, of: str) -> Iterator[Field | Left]:
    """Of a side table's columns, without its key; flags that stand side by side are one field."""
    others = [column for name, column in columns.items() if name != key]
    for flags, group in groupby(others, lambda column: column.flag):
        together = list(group)
        if flags and len(together) >= LEAST_FLAGS:
            yield _flags(together, of)
            continue
        for column in together:
            if _is_as_good_as(column):
                why = f"{_values(column)} in {column.rows:,} rows: says little more than {shown(key)}"
                yield Left(column.name, why)
            elif column.formats and not column.numeric:
                yield Left(column.name, "moments: make a number of them (days, years) to use them")
            else:
                yield field_of(column, log=False)


def _is_as_good_as(column: Column) -> bool:
    """Whether a column of a side table has a value of its own for most of its keys."""
    nearly = 1 < column.distinct >= RARELY_AGAIN * column.set.sum() and column.rows >= 20
    if column.is_list or column.separator is not None or column.decimal_comma:
        return False
    return nearly and not _is_quantity(column, log=False)


def time_fields(moments: Moments | None, names: Sequence[str]) -> Iterator[Field | Left]:
    """Hour and weekday, where the log spans several of them."""
    if moments is None:
        return
    column = moments.config.column
    local = np.unique(moments.found[~moments.bad] // 3_600_000_000)
    hours = len(np.unique(local % 24))
    if moments.days >= DAY_NAMES["hour"] and hours > 3:
        yield _part("hour", column, names, f"{hours} hours of the day occur; set time.zone for local hours")
    else:
        yield Left(column, f"no field `hour`: {hours} of 24 hours occur in what was looked at")
    if moments.days >= DAY_NAMES["weekday"]:
        yield _part("weekday", column, names, f"the log spans {moments.days:.0f} days")


def _part(part: str, column: str, names: Sequence[str], reason: str) -> Field:
    name = part if part not in names else f"{part}_of_time"
    return Field(name, {"kind": "time", "part": part}, (column,), reason)


def field_of(column: Column, *, is_id: bool = False, log: bool = True) -> Field | Left:
    """What a column's values ask for."""
    if not column.readable:
        return Left(column.name, f"its type {shown(str(column.kind))} is no single value: write it as plain columns")
    if column.distinct < 2:
        return Left(column.name, f"{'one value' if column.distinct else 'no value'} in all rows")
    several = _several(column)
    if several is not None:
        return several
    if column.formats and not column.numeric:
        return Left(column.name, "moments: only the log's `time` becomes fields")
    if column.decimal_comma:
        quantiles = _quantiles(column)
        keys = {"kind": "number", "quantiles": quantiles, "decimal": ","}
        why = f"numbers with a comma, such as {shown(column.top[0])}: {quantiles} bins of equal shares"
        return Field(column.name, keys, (column.name,), _missing(column, why))
    if _is_quantity(column, log=log):
        return _number(column)
    if column.dressed:
        why = f"numbers with signs or commas, such as {shown(column.top[0])}: take those out of them to use them"
        return Left(column.name, why, grave=True)
    if not is_id and is_row_number(column):
        why = "as many as rows, so those of later rows are all new: says nothing of them"
        return Left(column.name, f"ID: {_values(column)}, {why}", grave=True)
    found = of_values(column)
    return found if is_id else replace(found, caution=_few_texts(column, log=log))


def _few_texts(column: Column, *, log: bool) -> str:
    """What to say of a few texts among numbers, which make a vocabulary of what is a number."""
    good = np.isfinite(column.numbers)
    texts, rows = int((~good).sum()), int(column.counts[~good].sum())
    if not 0 < texts <= _FEW_TEXTS or rows > MOST_TEXTS * column.counts.sum() or good.sum() <= FEW_OF_A_SIDE:
        return ""
    some: list[str] = [str(column.values[at].as_py()) for at in np.flatnonzero(~good)]
    rest = Column(column.name, pa.chunked_array([column.values.take(pa.array(np.flatnonzero(good)))]), int(good.sum()))
    if not _is_quantity(rest, log=log):
        return ""
    keys = flow({"name": column.name, "kind": "number", "quantiles": _quantiles(rest)})
    words = f"{rows:,} value{'s' * (rows > 1)} such as {shown(some[0])!r} are no numbers, so it is a vocabulary: leave "
    words += f"them empty in the log and write `{keys}` in its place"
    word = quoted(column.name)
    if not log or word is None or not all(map(str.isprintable, some)):
        return words
    rule = f"{word} not in [{', '.join(json.dumps(text, ensure_ascii=False) for text in some)}]"
    return f"{words}; or write that, and leave their rows out: `filter: {scalar(rule)}`"


def of_values(column: Column) -> Field:
    """A field of a column's values as they are: a vocabulary, or hashed."""
    again = f"{_values(column)}, {column.repeats:.1f} rows for each"
    if column.distinct >= RARELY_AGAIN * column.rows and column.rows >= 50:
        again += "; few come again, so it generalises badly: try without it"
    if column.expected <= MOST_WORDS:
        rare = {"min_count": 1} if column.counts.max(initial=0) < OFTEN else {}  # else none of them might be kept
        return Field(column.name, {"kind": "vocabulary", **rare}, (column.name,), _missing(column, again))
    buckets = 1 << int(np.ceil(np.log2(min(ROOM * column.expected, MOST_BUCKETS))))
    why = "too many for a vocabulary, so they are hashed into about twice as many buckets"
    return Field(column.name, {"kind": "hash", "buckets": buckets}, (column.name,), _missing(column, f"{again}; {why}"))


def _several(column: Column) -> Field | None:
    """A field of several values, where they are lists or texts with a separator."""
    if not column.is_list and column.separator is None:
        return None
    lengths, parts = column.list_lengths(), column.parts()
    most = int(np.clip(np.percentile(lengths, 99) if len(lengths) else 1, 1, MOST_VALUES))
    keys: dict[str, Any] = {"kind": "vocabulary"} if parts <= MOST_WORDS else {"kind": "hash", "buckets": 1 << 17}
    keys |= {} if column.is_list else {"separator": column.separator}
    how = "lists" if column.is_list else f"several values between {column.separator!r}"
    why = f"{how}: {parts:,} distinct, at most {int(lengths.max(initial=0))} in a row"
    return Field(column.name, {**keys, "max_values": most}, (column.name,), _missing(column, why))


def _flags(columns: Sequence[Column], of: str) -> Field:
    """One field of several values out of columns of 0 and 1."""
    most = int(max(sum(np.char.lower(_texts(column)) == _yes(column) for column in columns).max(), 1))
    why = f"{len(columns)} columns of 0 and 1 side by side, at most {most} set in a row: one field of several values"
    names = [column.name for column in columns]
    keys = {"kind": "vocabulary", "flags": names, "max_values": min(most, MOST_VALUES)}
    return Field(f"{of}_flags", keys, tuple(names), why)


def _texts(column: Column) -> np.ndarray:
    return np.array([*column.values.to_pylist(), ""])[column.codes]


def _yes(column: Column) -> str:
    return "1" if "1" in column.values.to_pylist() else "true"


def _is_quantity(column: Column, *, log: bool) -> bool:
    """Whether a column's numbers have an order that says something: prices, ages and counts, not codes."""
    names = words_of(column.name)
    if not column.numeric or column.padded or any(name in CODES for name in names):
        return False
    if not column.whole:
        return True
    if not log:
        return column.distinct > FEW_OF_A_SIDE
    hinted = any(name in QUANTITIES for name in names) and column.distinct > FEW_OF_A_SIDE
    return hinted or (column.distinct > FEW_NUMBERS and column.counted)


def _number(column: Column) -> Field:
    values = f"numbers from {column.range}"
    if column.counted and column.numbers.min() >= -1:
        why = f"{values}, small ones most often: bins that widen as they grow"
        return Field(column.name, {"kind": "number", "log2_squared": True}, (column.name,), _missing(column, why))
    quantiles = _quantiles(column)
    why = f"{values}: {quantiles} bins of equal shares"
    return Field(column.name, {"kind": "number", "quantiles": quantiles}, (column.name,), _missing(column, why))


def _quantiles(column: Column) -> int:
    return int(np.clip(column.distinct // 2, 4, 20))


def _values(column: Column) -> str:
    """How many there are."""
    about = "about " if column.expected != column.distinct else ""
    return f"{about}{column.expected:,} values"


def _missing(column: Column, words: str) -> str:
    if column.missing > 0.0005:
        words += f"; {column.missing:.1%} missing"
    if column.distinct and column.top[1] > 0.5 and not column.is_list:
        words += f"; {shown(column.top[0])!r} in {column.top[1]:.0%}"
    return words


def chosen(found: Sequence[Field | Left], ids: Sequence[str]) -> tuple[list[Field], list[Left]]:
    """Fields and what is left out; of very many fields the first ones, ids always."""
    fields = [one for one in found if isinstance(one, Field)]
    left = [one for one in found if isinstance(one, Left)]
    if len(fields) > MOST_FIELDS:
        kept = [one for one in fields if one.name in ids]
        kept += [one for one in fields if one.name not in ids][: MOST_FIELDS - len(kept)]
        why = f"one field more than {MOST_FIELDS}, with which training is slow: put it in place of a worse one"
        left += [Left(one.name, why) for one in fields if one not in kept]
        fields = [one for one in fields if one in kept]
    return fields, left
