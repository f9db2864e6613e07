"""What the values of one column look like: how many there are, how many distinct, and whether they read as numbers,
moments, lists or flags.

Distinct values of a source of which only a sample was seen are estimated by GEE: sqrt(N / n) f_1 + sum_{j > 1} f_j,
with f_j the values seen j times in n of N rows (M. Charikar, S. Chaudhuri, R. Motwani and V. Narasayya, Towards
estimation error guarantees for distinct values, PODS 2000).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.columns.moment import TimeConfig
from fieldwise.features.columns.text import canonical, moments, numbers
from fieldwise.features.fields.number import DRESSED, WITH_COMMA
from fieldwise.features.source.misread import formats
from fieldwise.features.terminal import printable

_SEPARATORS = ("|", ";", ", ", ",")
"""Of values that are lists, the likelier first."""
_LOOKED = 2000
"""Distinct values that are tried as moments and lists."""
_CODES = 50
"""Numbers with a sign of which there are no more may be codes."""
FEW_BAD = 0.01
"""Share of values that may be no moments in a column of them."""
QUANTITIES = ("price", "amount", "age", "count", "num", "number", "cost", "duration", "length", "size", "score",
              "views", "days", "qty", "quantity", "distance", "balance", "income", "year", "seconds", "minutes",
              "weight", "rank", "total", "sum", "avg", "mean", "ratio", "rate", "salary")  # fmt: skip
"""Words of columns whose numbers are more or less of something."""
SAME = 0.995
"""Share of rows in which a column has its item's usual value, from which on it is the item's own."""


class Column:
    """One column of a sample."""

    def __init__(self, name: str, array: pa.ChunkedArray, total: int) -> None:
        """total: rows of the source."""
        self.name, self.total, self.rows = name, total, len(array)
        self.kind: pa.DataType = array.type
        self.is_list = any(test(self.kind) for test in (pa.types.is_list, pa.types.is_large_list))
        self.readable = self.is_list or not pa.types.is_nested(self.kind)
        if not self.readable:
            array = pa.chunked_array([pa.nulls(self.rows, pa.string())])
        whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        if self.is_list:
            lengths = pc.fill_null(pc.list_value_length(whole), 0).to_numpy(zero_copy_only=False)
            self.lengths: npt.NDArray[np.int64] = lengths.astype(np.int64)
            whole = pc.list_flatten(whole)
        texts = canonical(whole)
        texts = pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, texts.type), texts)
        coded = texts.dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        self.values: pa.Array = coded.dictionary
        """Distinct canonical texts, of lists those of their items."""
        self.codes: npt.NDArray[np.int64] = pc.fill_null(coded.indices.cast(pa.int64()), -1).to_numpy()
        """[rows] place among ``values``, -1 for missing; of lists of all items in a row."""
        self.counts: npt.NDArray[np.int64] = np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))

    @property
    def distinct(self) -> int:
        """In the sample."""
        return len(self.values)

    @property
    def set(self) -> npt.NDArray[np.bool_]:
        """[rows] Where there is a value."""
        return self.lengths > 0 if self.is_list else self.codes >= 0

    @cached_property
    def missing(self) -> float:
        return float(1 - self.set.mean()) if self.rows else 1.0

    @cached_property
    def expected(self) -> int:
        """Distinct values in all rows."""
        seen = self.distinct
        if self.total <= self.rows or not seen:
            return seen
        once = int((self.counts == 1).sum())
        return min(self.total, round(math.sqrt(self.total / self.rows) * once) + seen - once)

    @property
    def repeats(self) -> float:
        """Rows of the sample for each distinct value."""
        return float(self.counts.sum() / max(1, self.distinct))

    @cached_property
    def numbers(self) -> npt.NDArray[np.float64]:
        """[distinct] NaN for what is no number."""
        found, bad = numbers(self.values)
        return np.where(bad, np.nan, found)

    @cached_property
    def numeric(self) -> bool:
        """Whether all values are finite numbers."""
        return self.distinct > 0 and not self.is_list and bool(np.isfinite(self.numbers).all())

    @cached_property
    def whole(self) -> bool:
        """Whether they are integers."""
        return self.numeric and bool((self.numbers == np.floor(self.numbers)).all())

    @cached_property
    def padded(self) -> bool:
        """Whether zeros lead some of them: then they are codes, no quantities."""
        return self.numeric and any(re.match(r"[-+]?0\d", text) for text in self.some())

    def some(self, most: int = _LOOKED) -> list[str]:
        """Distinct values, spread over all."""
        step = max(1, len(self.values) // most)
        found: list[str] = self.values.take(pa.array(np.arange(0, len(self.values), step))).to_pylist()
        return found

    @cached_property
    def formats(self) -> list[str]:
        """How the values read as moments, the likelier first; none if they are none."""
        if self.is_list or not self.distinct:
            return []
        if pa.types.is_timestamp(self.kind) or pa.types.is_date(self.kind):
            return ["auto"]
        return [] if pa.types.is_boolean(self.kind) else formats(pa.array(self.some()), FEW_BAD)

    def moments(self, time: TimeConfig) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """(microseconds [rows], whether there is none or none that is read [rows])."""
        found, missing, bad = moments(self.values, time)
        wrong = np.append(missing | bad, True)[self.codes]
        return np.append(found, 0)[self.codes], wrong

    @cached_property
    def flag(self) -> bool:
        """Whether values are 0 and 1, or false and true, and both occur."""
        return {text.lower() for text in self.some(3)} in ({"0", "1"}, {"false", "true"}) and self.distinct == 2

    @cached_property
    def decimal_comma(self) -> bool:
        """Whether values are numbers as 12,50 and 1.299,00 write them."""
        return not self.is_list and self.distinct > 1 and all(WITH_COMMA.fullmatch(text) for text in self.some())

    @cached_property
    def dressed(self) -> bool:
        """Whether values are numbers with commas between thousands, signs or units, that read as none."""
        some = [] if self.is_list or self.numeric or self.distinct <= _CODES else self.some()
        return bool(some) and all(DRESSED.fullmatch(text) for text in some)

    @cached_property
    def separator(self) -> str | None:
        """What stands between several values of a row: its parts come again in other rows."""
        if self.is_list or self.numeric or self.distinct < 3 or self.formats or self.decimal_comma:
            return None
        texts, spread = self.some(), max(1, len(self.values) // _LOOKED)
        weights = self.counts[::spread][: len(texts)]
        for sign in _SEPARATORS:
            parts = [text.split(sign) for text in texts]
            lengths = np.array([len(part) for part in parts])
            if np.average(lengths > 1, weights=weights) < 0.05:
                continue
            every = [part for one in parts for part in one]
            longest = max(map(len, every), default=0)
            if len(set(every)) <= max(3, len(every) / 2) and longest <= 40 and len(set(every)) <= 0.7 * len(texts) + 8:
                return sign
        return None

    def list_lengths(self) -> npt.NDArray[np.int64]:
        """How many values rows hold that hold any."""
        if self.is_list:
            return self.lengths[self.lengths > 0]
        lengths = np.array([text.count(self.separator or "\0") + 1 for text in self.some()])
        return np.repeat(lengths, np.minimum(self.counts[:: max(1, len(self.values) // _LOOKED)][: len(lengths)], 100))

    def parts(self) -> int:
        """Distinct values of lists."""
        if self.is_list:
            return self.distinct
        return len({part for text in self.some() for part in text.split(self.separator or "\0")} - {""})

    @cached_property
    def top(self) -> tuple[str, float]:
        """The most frequent value and its share of the rows."""
        place = int(self.counts.argmax())
        return str(self.values[place].as_py()), float(self.counts[place] / max(1, self.rows))

    @property
    def range(self) -> str:
        return f"{np.nanmin(self.numbers):g} to {np.nanmax(self.numbers):g}"

    @cached_property
    def counted(self) -> bool:
        """Whether they look like counts: from 0 or 1 on, small ones most often."""
        if not self.whole or self.padded or self.numbers.min() < -2 or self.distinct < 3:
            return False
        order = np.argsort(self.numbers)
        often = self.counts[order]
        low = int(often.argmax()) < max(3, len(order) // 100)
        half = self.numbers[order][np.searchsorted(np.cumsum(often), often.sum() / 2)]
        return low and bool(half <= self.numbers.max() / 8)


def follows(column: Column, item: Column) -> bool:
    """Whether a column's value is one of the item."""
    if column.is_list:
        return True
    both = (item.codes >= 0) & (item.counts[item.codes] > 1)
    if not both.any():
        return False
    pairs, often = np.unique(item.codes[both] * (column.distinct + 1) + column.codes[both] + 1, return_counts=True)
    usual = np.zeros(item.distinct, np.int64)
    np.maximum.at(usual, pairs // (column.distinct + 1), often)
    return bool(usual.sum() >= SAME * both.sum())


def shown(text: str, most: int = 32) -> str:
    """A value or name from data inside a comment: one printable line, cut."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def words_of(name: str) -> list[str]:
    """``clickedItemId`` and ``clicked_item_id``: clicked, item, id."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", apart) if word]


def columns_of(table: pa.Table, total: int, names: Iterable[str]) -> dict[str, Column]:
    return {name: Column(name, table[name], total) for name in names}
