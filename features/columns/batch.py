"""Raw columns of a batch, read as texts, numbers or moments when someone asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from fieldwise.features.arrays import Bool, Float64, Int32, Int64, UInt8
from fieldwise.features.columns.moment import TimeConfig
from fieldwise.features.columns.text import Texts, canonical, decoded, moments, numbers, text_numbers, texts
from fieldwise.features.errors import InputError
from fieldwise.features.words import some


class Views:
    """Texts of several columns over one byte buffer; views of ``data``, which they keep in memory."""

    def __init__(self, data: UInt8, start: Int64, length: Int32) -> None:
        """start, length [columns, n]: see `Texts`."""
        self.data, self.start, self.length = data, start, length

    def of(self, column: int) -> Texts:
        return Texts(self.data, self.start[column], self.length[column])

    def filter(self, keep: Bool) -> Views:
        return Views(self.data, np.compress(keep, self.start, axis=1), np.compress(keep, self.length, axis=1))


class Columns:
    """Raw columns of one batch by name. Conversions are made once however many fields read a column.

    Columns of text may be given as views of the bytes they were read from: they become Arrow arrays if someone asks.

    Args:
        arrays: columns by name, in order; None for those of ``views``, in the order of these.
        views: text columns.
        rows: n.
        origins: file of a column whose type may be one that has no text, for the error that says so.
    """

    def __init__(
        self,
        arrays: Mapping[str, pa.Array | pa.ChunkedArray | None],
        rows: int,
        views: Views | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        self.rows, self._given, self._views, self.origins = rows, dict(arrays), views, dict(origins or {})
        viewed = [name for name, array in arrays.items() if array is None]
        self._place = {name: place for place, name in enumerate(viewed)}
        self._arrays: dict[str, pa.Array] = {}
        self._texts: dict[str, Texts] = {}
        self._numbers: dict[str, tuple[Float64, Bool]] = {}
        self._moments: dict[TimeConfig, tuple[Int64, Bool, Bool]] = {}

    @staticmethod
    def of(batch: pa.RecordBatch | pa.Table | Columns) -> Columns:
        if isinstance(batch, Columns):
            return batch
        return Columns(dict(zip(batch.schema.names, batch.columns, strict=True)), batch.num_rows)

    @property
    def names(self) -> list[str]:
        return list(self._given)

    def where(self, name: str) -> str:
        """A column in words."""
        return f"{self.origins[name]}, column {name!r}" if name in self.origins else f"column {name!r}"

    def require_single(self, name: str) -> None:
        """Raises InputError for a column whose values are lists or of several parts."""
        if pa.types.is_nested(self.kind(name)):
            canonical(self.array(name), self.where(name))

    def kind(self, name: str) -> pa.DataType:
        """What ``array`` is of."""
        return pa.string() if name in self._place else self.array(name).type

    def array(self, name: str) -> pa.Array:
        if name not in self._given:
            raise missing_column("the raw rows", name, self.names)
        if name not in self._arrays:
            column = self._given[name]
            if column is None:
                column = self.texts(name).to_arrow()
            if isinstance(column, pa.ChunkedArray):
                column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
            self._arrays[name] = decoded(column)
        return self._arrays[name]

    def texts(self, name: str) -> Texts:
        if name not in self._texts:
            views = self._views if name in self._place else None
            given = texts(self.array(name), self.where(name)) if views is None else views.of(self._place[name])
            self._texts[name] = given
        return self._texts[name]

    def numbers(self, name: str) -> tuple[Float64, Bool]:
        """As ``numbers`` of the column."""
        if name not in self._numbers:
            viewed = name in self._place
            self._numbers[name] = (
                text_numbers(self.texts(name)) if viewed else numbers(self.array(name), self.where(name))
            )
        return self._numbers[name]

    def moments(self, config: TimeConfig) -> tuple[Int64, Bool, Bool]:
        if config not in self._moments:
            self._moments[config] = moments(self.array(config.column), config, self.where(config.column))
        return self._moments[config]

    def batch(self, names: Sequence[str] | None = None) -> pa.RecordBatch:
        """Columns (default: all) as Arrow."""
        wanted = self.names if names is None else list(names)
        return pa.RecordBatch.from_arrays([self.array(name) for name in wanted], wanted)

    def filter(self, keep: Bool) -> Columns:
        """The rows where ``keep`` holds."""
        mask = pa.array(keep)
        arrays = {name: None if column is None else column.filter(mask) for name, column in self._given.items()}
        views = None if self._views is None else self._views.filter(keep)
        return Columns(arrays, int(np.count_nonzero(keep)), views, self.origins)

    def adding(self, more: Mapping[str, pa.Array], origin: str = "") -> Columns:
        """These columns and others of as many rows, which replace those of the same names."""
        views, given = self._views, self._given | dict(more)
        if views is not None and not self._place.keys().isdisjoint(more):
            left = [place for name, place in self._place.items() if name not in more]
            views = Views(views.data, views.start[left], views.length[left])
        return Columns(given, self.rows, views, self.origins | (dict.fromkeys(more, origin) if origin else {}))


def one_table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """The rows of batches of equal names, of which there is one at least. A column whose type is not the same in all
    becomes its canonical text; lists of texts, which have none, become one type of these."""
    whole = {}
    for name in batches[0].schema.names:
        parts = [batch.column(batch.schema.get_field_index(name)) for batch in batches]
        kinds = {part.type for part in parts}
        if len(kinds) > 1 and all(_of_texts(kind) for kind in kinds):
            parts = [part.cast(pa.list_(pa.string())) for part in parts]
        elif len(kinds) > 1:
            parts = [canonical(part, f"column {name!r}").cast(pa.string()) for part in parts]
        whole[name] = pa.chunked_array(parts)
    return pa.table(whole)


def _of_texts(kind: pa.DataType) -> bool:
    """Whether values are lists of texts, however long these may be."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return lists and bool(pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))


def missing_column(where: str, name: str, found: list[str]) -> InputError:
    near = get_close_matches(name, found, 1)
    return InputError(
        where,
        expected=f"a column {name!r}",
        found=f"columns {some(found)}" if found else "no column",
        fix=f"Did you mean {near[0]!r}?" if near else "Name the columns in the config, or mend the file.",
    )
