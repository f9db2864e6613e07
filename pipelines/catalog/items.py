"""The items of a catalog: read, filtered, sorted by id, on the driver."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.columns.batch import Columns, one_table
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.text import canonical
from fieldwise.features.errors import InputError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.quarantine import Quarantined
from fieldwise.features.source.raw import split_ranges
from fieldwise.features.source.rows import Reject
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.build.quality import judged_rejects
from fieldwise.pipelines.config.catalog import AtLeastConfig
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.coverage import Coverage, Tally
from fieldwise.pipelines.score.ids import together
from fieldwise.pipelines.score.sides import Side

RANGE_BYTES = 8 << 20
"""Source bytes read at a time, by the driver or a task."""


@dataclass(frozen=True)
class Items:
    """Eligible items in the order of their ids."""

    ids: pa.Array
    slots: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    least: tuple[tuple[int, int], ...]
    """``catalog.at_least``: categories and how many."""
    rows: int
    """Of the source, eligible or not."""
    rejects: list[Reject]
    quarantined: list[Quarantined]
    """What ``rejects`` are."""
    parts: list[pa.RecordBatch]
    """Raw columns as they were read."""
    order: pa.Array
    """Of the rows of ``parts``."""
    tally: Tally

    def columns(self, names: list[str]) -> pa.Table:
        """Raw columns in the order of ids."""
        return one_table([part.select(names) for part in self.parts]).take(self.order).combine_chunks()


def read_items(config: Config, side: Side, spec: FeatureSpec, date: str | None, coverage: Coverage) -> Items:
    """All eligible items.

    Raises InputError for repeated ids and when none is eligible, RefusedError past the tolerated share of bad rows.
    """
    catalog = config.require_catalog()
    rule = None if catalog.filter is None else Expression(catalog.filter, "catalog.filter")
    ranges = split_ranges(side.source, list_files(side.source, config.base, date), RANGE_BYTES)
    parts = [rows for rng in ranges for rows in side.rows(rng, spec)]
    rejects = [reject for part in parts for reject in part.rejects]
    total = sum(len(part.ids) + len(part.rejects) for part in parts)
    bad = judged_rejects(config, "catalog.items", total - len(rejects), rejects, side.source.format)
    if rule is not None:
        unread = sum(int(np.count_nonzero(rule.evaluate(part.columns)[1])) for part in parts)
        if unread:
            say(f"  catalog.filter: {unread:,} items hold a value that reads as no number, and are left out")
        parts = [part.where(holds(rule, part.columns)) for part in parts]
    ids = together([part.ids for part in parts], "catalog.items")
    if len(ids) == 0:
        raise InputError(
            "catalog.items",
            expected="at least one eligible item",
            found=f"none of {total}",
            fix="Check items and filter.",
        )
    order = pc.sort_indices(ids)
    ids = ids.take(order)
    refuse_repeated(ids, "catalog.items", side.id, "Remove the duplicates, or tell them apart by catalog.filter.")
    slots = np.concatenate([part.slots for part in parts])[order.to_numpy()]
    tally = Tally(spec, coverage)
    for part in parts:
        tally.add(part.slots, part.columns)
    none = np.zeros(len(ids), np.int32)
    items = Items(ids, slots, none, (), total, rejects, bad, [part.columns for part in parts], order, tally)
    return items if catalog.category is None else _with_categories(items, catalog.category, catalog.at_least)


def _with_categories(items: Items, column: str, at_least: AtLeastConfig | None) -> Items:
    """Says which values of ``at_least`` no item has."""
    text = canonical(items.columns([column]).column(0).combine_chunks()).cast(pa.string())
    coded = pc.fill_null(text, "").dictionary_encode()
    codes = {value: code for code, value in enumerate(coded.dictionary.to_pylist())}
    wanted = {} if at_least is None else at_least.items
    if lacking := [repr(value) for value in wanted if value not in codes]:
        warn(f"catalog.at_least: no eligible item has {column} {', '.join(lacking)}; lists hold none")
    least = tuple((codes[value], count) for value, count in wanted.items() if value in codes)
    return replace(items, category=coded.indices.to_numpy().astype(np.int32), least=least)


def holds(rule: Expression, columns: pa.RecordBatch | Columns) -> npt.NDArray[np.bool_]:
    """Rows where a rule holds; it does not where it has no value."""
    found = pc.fill_null(pc.cast(rule.evaluate(columns)[0], pa.bool_()), pa.scalar(False))
    kept: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return kept


def repeated(ids: pa.Array) -> npt.NDArray[np.intp]:
    """Positions in sorted ids whose successor is the same."""
    same = pc.equal(ids.slice(1), ids.slice(0, max(len(ids) - 1, 0)))
    return np.flatnonzero(same.to_numpy(zero_copy_only=False))


def refuse_repeated(ids: pa.Array, where: str, name: str, fix: str) -> None:
    """Raises InputError for sorted ids of which one comes twice."""
    twins = repeated(ids)
    if len(twins):
        raise InputError(where, expected=f"each {name} once", found=f"{ids[int(twins[0])].as_py()!r} again", fix=fix)
