"""Contexts and items as ``evaluate-lists`` wants them: their ids, and the columns that slices are cut by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Int32
from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.text import canonical
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.files.listing import directory_columns, list_files
from fieldwise.features.source.join import SideTable
from fieldwise.features.source.keys import keys_found
from fieldwise.features.source.raw import read_range, source_columns, split_ranges
from fieldwise.features.source.rows import FileRange, Reject
from fieldwise.features.words import some
from fieldwise.pipelines.build.quality import judged_rejects
from fieldwise.pipelines.catalog.items import RANGE_BYTES, holds, refuse_repeated
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.ids import identity, together

MISSING, OUTSIDE = "missing", "not in the catalog"
"""Values of a slice: of a row without one, and of an id that contexts or items do not have."""
MOST_VALUES = 200
"""Of a column that slices are cut by."""


@dataclass(frozen=True)
class DescribedSide:
    """Contexts or items by columns that no model needs to know. Picklable: side tables travel with it."""

    name: str
    source: SourceConfig
    id: str
    read: tuple[str, ...]
    """Columns of the source's own."""
    tables: tuple[SideTable, ...]
    wanted: tuple[str, ...]

    @staticmethod
    def of(config: Config, name: str, wanted: Sequence[str], date: str | None) -> DescribedSide:
        """``contexts`` or ``items`` of the catalog. InputError for a column that neither they nor side tables have."""
        catalog = config.require_catalog()
        source: SourceConfig = getattr(catalog, name)
        id = catalog.context_id if name == "contexts" else catalog.item_id
        files = list_files(source, config.base, date)
        own = source_columns(source, files)[1]
        if own is None:
            asked = {id, *wanted, *(join.on for join in config.join)}
            own = sorted(keys_found(files, asked))
        own = [*own, *set.intersection(*(set(directory_columns(file.path)) for file in files))]
        tables = [SideTable(join, config.base) for join in config.join if join.on in own and set(wanted) - set(own)]
        tables = [table for table in tables if set(table.names) & (set(wanted) - set(own))]
        have = {*own, *(column for table in tables for column in table.names)}
        for column in (id, *wanted):
            if column not in have:
                raise InputError(
                    f"catalog.{name}", expected=f"a column {column!r}", found=f"columns {some(sorted(have))}",
                    fix="Name a column of theirs or of a side table.",
                )  # fmt: skip
        read = dict.fromkeys([id, *(column for column in wanted if column in own), *(table.on for table in tables)])
        return DescribedSide(name, source, id, tuple(read), tuple(tables), tuple(wanted))

    def rows(self, rng: FileRange) -> Iterator[tuple[pa.Array, Columns, list[Reject]]]:
        """(ids, all columns, rows that could not be read); an id is null where there is none."""
        for raw in read_range(self.source, rng, self.read):
            columns = raw.columns
            for table in self.tables:
                columns, _ = table.add_to(columns, self.wanted)
            yield identity(columns.array(self.id), f"catalog.{self.name}: column {self.id!r}"), columns, raw.rejects


def values_of(columns: Columns, name: str) -> pa.Array:
    """A column's values as slices are named by them."""
    text = canonical(columns.array(name)).cast(pa.string())
    return pc.if_else(pc.fill_null(pc.equal(pc.binary_length(text), 0), True), MISSING, text)


@dataclass(frozen=True)
class Eligible:
    """The items that lists may hold, in the order of their ids."""

    ids: pa.Array
    slices: dict[str, tuple[list[str], Int32]]
    """By column: its values, and which of them each item has."""


def read_eligible(config: Config, date: str | None) -> Eligible:
    """The catalog's items, on the driver.

    Raises InputError for repeated ids and where no item is eligible, RefusedError past the tolerated share of
    unreadable rows, ConfigError for a column of too many values.
    """
    catalog = config.require_catalog()
    rule = None if catalog.filter is None else Expression(catalog.filter, "catalog.filter")
    slices = config.lists.item_slices
    side = DescribedSide.of(config, "items", list(dict.fromkeys([*slices, *(rule.columns if rule else ())])), date)
    ids, values, rejects = list[pa.Array](), {name: list[pa.Array]() for name in slices}, list[Reject]()
    for rng in split_ranges(side.source, list_files(side.source, config.base, date), RANGE_BYTES):
        for found, columns, bad in side.rows(rng):
            kept = found.is_valid().to_numpy(zero_copy_only=False)
            if rule is not None:
                kept &= holds(rule, columns)
            ids.append(found.filter(pa.array(kept)))
            for name in slices:
                values[name].append(values_of(columns, name).filter(pa.array(kept)))
            rejects += bad
    judged_rejects(config, "catalog.items", sum(map(len, ids)), rejects, side.source.format)
    every = together(ids, "catalog.items")
    if not len(every):
        fix = "Check items and filter."
        raise InputError("catalog.items", expected="at least one eligible item", found="none", fix=fix)
    order = pc.sort_indices(every)
    refuse_repeated(every.take(order), "catalog.items", side.id, "Remove the duplicates.")
    coded = {}
    for name in slices:
        column = pa.concat_arrays(values[name]).take(order).dictionary_encode()
        require_few("lists.item_slices", name, len(column.dictionary))
        coded[name] = (column.dictionary.to_pylist(), column.indices.to_numpy().astype(np.int32))
    return Eligible(every.take(order), coded)


def require_few(key: str, column: str, values: int) -> None:
    """ConfigError for a column whose values are too many to look at one by one."""
    if values > MOST_VALUES:
        found = f"{column}, which has at least {values:,}"
        fix = "Slices are for few values: name another column."
        raise ConfigError(key, expected=f"columns of at most {MOST_VALUES} values", found=found, fix=fix)
