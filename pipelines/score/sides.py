"""Contexts and items as the encoder wants them: which side a field belongs to, and rows of one side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.arrays import Int32
from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.text import moments
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.fields.base import Problem, all_but, first_of_rows
from fieldwise.features.fields.encoder import encoder_of
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.fields.time import TimeField
from fieldwise.features.files.listing import directory_columns, list_files
from fieldwise.features.source.join import SideTable
from fieldwise.features.source.keys import first_keys, keys_found
from fieldwise.features.source.quarantine import Origins
from fieldwise.features.source.raw import read_range, source_columns
from fieldwise.features.source.rows import FileRange, Reject
from fieldwise.features.words import some
from fieldwise.pipelines.build.columns import on_no_side
from fieldwise.pipelines.config.catalog import moment_of
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.ids import identity, undecodable


@dataclass(frozen=True)
class SideRows:
    """n rows of one side."""

    ids: pa.Array
    """See ``ids.identity``."""
    columns: pa.RecordBatch
    """Every raw column of the spec (null where the side has none), then further ones asked for."""
    slots: Int32
    """[n, S]; slots of the other side's fields mean nothing."""
    rejects: list[Reject]

    def where(self, keep: npt.NDArray[np.bool_]) -> SideRows:
        """The rows where ``keep`` holds; rejects stay."""
        kept = pa.array(keep)
        return SideRows(self.ids.filter(kept), self.columns.filter(kept), self.slots[keep], self.rejects)


@dataclass(frozen=True)
class Side:
    """Contexts or items. Picklable: side tables travel with it."""

    name: str
    source: SourceConfig
    id: str
    read: tuple[str, ...]
    """Columns read from the source."""
    tables: tuple[SideTable, ...]
    constants: Mapping[str, Any]
    wanted: tuple[str, ...]
    """Columns of a row: the spec's, then further ones."""

    def rows(self, rng: FileRange, spec: FeatureSpec) -> Iterator[SideRows]:
        """Encoded rows of a range; rows with unreadable values or without an id become rejects."""
        lists = {name for field in spec.fields for name in field.config.lists}
        read = {field.name: field.config.columns for field in spec.fields}
        origins = Origins(read, self.tables, dict.fromkeys(self.constants, "catalog.fixed"))
        for raw in read_range(self.source, rng, self.read, lists):
            columns = raw.columns
            for table in self.tables:
                columns, _ = table.add_to(columns, self.wanted)
            have = {name: columns.array(name) for name in columns.names}
            have |= {name: _repeated(value, columns.rows) for name, value in self.constants.items()}
            nothing = pa.nulls(columns.rows, pa.string())
            batch = pa.RecordBatch.from_arrays([have.get(name, nothing) for name in self.wanted], list(self.wanted))
            rows_of = Columns(
                dict(zip(self.wanted, batch.columns, strict=True)), batch.num_rows, origins=columns.origins
            )
            encoded = encoder_of(spec).encode(rows_of)
            ids = identity(have[self.id], f"catalog.{self.name}: column {self.id!r}")
            reasons = first_of_rows(encoded.problems)
            bad = undecodable(have[self.id])
            for row in np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False)).tolist():
                reasons[row] = Problem(row, self.id, "undecodable" if bad[row] else "missing_id", "")
            every = have | dict(zip(self.wanted, batch.columns, strict=True))
            whole = replace(raw, columns=Columns(every, columns.rows))
            rejects = [*raw.rejects]
            for row, problem in sorted(reasons.items()):
                rejects.append(origins.reject(whole, problem)._replace(raw=raw.raw(row)))
            rows = SideRows(ids, batch, encoded.slots, rejects)
            yield rows.where(all_but(reasons, len(ids))) if reasons else rows


@dataclass(frozen=True)
class Split:
    """How a config's fields divide between contexts and items."""

    of_item: npt.NDArray[np.bool_]
    """[F]"""
    mixed: tuple[str, ...]
    """Fields that read columns of both sides."""
    contexts: Side
    items: Side

    def fields(self, spec: FeatureSpec, *, item: bool) -> list[str]:
        """Fields that read columns of this side alone."""
        return [
            f.name for f, of in zip(spec.fields, self.of_item, strict=True) if of == item and f.name not in self.mixed
        ]


def split_sides(config: Config, spec: FeatureSpec, date: str | None) -> Split:
    """Assign every field.

    Raises InputError naming the columns that neither side has, ConfigError for fields that do not exist.
    """
    catalog = config.require_catalog()
    constants: dict[str, Any] = dict(catalog.fixed)
    if catalog.time is not None:
        moment = _moment(catalog.time, date, spec)
        constants |= {f.config.of.column: moment for f in spec.fields if isinstance(f.config, TimeField)}
    has_context, context_tables = _available(config, catalog.contexts, set(constants), date)
    has_item, item_tables = _available(config, catalog.items, set(), date)
    has_item -= set(constants)
    files_have = has_context | has_item  # what directories tell counts where no file has it
    has_context |= _told(config, catalog.contexts, date) - files_have
    has_item |= _told(config, catalog.items, date) - files_have
    for name, side, has in (("context_id", catalog.context_id, has_context), ("item_id", catalog.item_id, has_item)):
        if side not in has:
            source = catalog.contexts if name == "context_id" else catalog.items
            raise InputError(
                f"catalog.{name}", expected=f"a column {side!r} in {', '.join(source.path)}",
                found=f"columns {', '.join(sorted(has))}", fix="Name a column of that source.",
            )  # fmt: skip
    of_item = _assign(spec, catalog.context_fields, catalog.item_fields, has_context, has_item)
    mixed = tuple(
        field.name
        for field, item in zip(spec.fields, of_item, strict=True)
        if not set(field.config.columns) <= (has_item if item else has_context)
    )
    context_columns = {c for f, item in zip(spec.fields, of_item, strict=True) if not item or f.name in mixed
                       for c in f.config.columns}  # fmt: skip
    item_columns = {c for f, item in zip(spec.fields, of_item, strict=True) if item or f.name in mixed
                    for c in f.config.columns}  # fmt: skip
    context_columns &= has_context
    item_columns = (item_columns & has_item) - (context_columns if mixed else set())
    further = [] if catalog.category is None else [catalog.category]
    if catalog.filter is not None:
        further += Expression(catalog.filter, "catalog.filter").columns
    contexts = _side(
        "contexts",
        catalog.contexts,
        catalog.context_id,
        context_columns,
        context_tables,
        constants,
        spec,
        [],
        config,
        date,
    )
    items = _side("items", catalog.items, catalog.item_id, item_columns, item_tables, {}, spec, further, config, date)
    return Split(of_item, mixed, contexts, items)


def _assign(
    spec: FeatureSpec,
    context_fields: list[str] | None,
    item_fields: list[str] | None,
    has_context: set[str],
    has_item: set[str],
) -> npt.NDArray[np.bool_]:
    absent = [
        (field.config, c) for field in spec.fields for c in field.config.columns if c not in has_context | has_item
    ]
    if absent:
        raise on_no_side(absent)
    of_item = np.zeros(len(spec.fields), np.bool_)
    for f, field in enumerate(spec.fields):
        columns = set(field.config.columns)
        of_item[f] = columns <= has_item
        if field.name in (context_fields or ()):
            of_item[f] = False
        if field.name in (item_fields or ()):
            of_item[f] = True
    return of_item


def _available(
    config: Config, source: SourceConfig, constants: set[str], date: str | None
) -> tuple[set[str], list[SideTable]]:
    """Columns of a side, and the side tables whose key it has."""
    own = set(_columns(config, source, date))
    needed = {column for field in config.fields for column in field.columns} - own - constants
    tables = []
    for join in config.join:
        if join.on in own and needed:
            table = SideTable(join, config.base)
            if needed & set(table.names):
                tables.append(table)
    return own | constants | {name for table in tables for name in table.names}, tables


def _columns(config: Config, source: SourceConfig, date: str | None) -> list[str]:
    """Columns of a side's own files; of jsonl those that somebody may ask for."""
    files = list_files(source, config.base, date)
    names = source_columns(source, files)[1]
    if names is not None:
        return names
    catalog = config.require_catalog()
    asked = [column for field in config.fields for column in field.columns] + [join.on for join in config.join]
    asked += [catalog.context_id, catalog.item_id, *([catalog.category] if catalog.category else [])]
    asked += Expression(catalog.filter, "catalog.filter").columns if catalog.filter is not None else ()
    return list(dict.fromkeys([*first_keys(files), *sorted(keys_found(files, set(asked)))]))


def _told(config: Config, source: SourceConfig, date: str | None) -> set[str]:
    """Columns that the directories above every file of a side tell."""
    files = list_files(source, config.base, date)
    return set.intersection(*(set(directory_columns(file.path)) for file in files))


def _side(
    name: str, source: SourceConfig, id: str, columns: set[str], tables: list[SideTable], constants: Mapping[str, Any],
    spec: FeatureSpec, further: list[str], config: Config, date: str | None,
) -> Side:  # fmt: skip
    own = _columns(config, source, date)
    own += [column for column in sorted(_told(config, source, date)) if column not in own]
    known = set(own)
    used = [t for t in tables if set(t.names) & (columns | set(further)) - known]
    for column in further:
        if column not in known and not any(column in t.names for t in used):
            raise InputError(
                f"catalog: {name}",
                expected=f"a column {column!r}",
                found=f"columns {some(own)}",
                fix="Add it to that source.",
            )
    read = [
        c
        for c in dict.fromkeys([id, *columns, *further, *(t.on for t in used)])
        if (c in known and c not in constants) or c == id
    ]
    wanted = tuple(dict.fromkeys([*spec.raw_columns, *further]))
    return Side(name, source, id, tuple(sorted(read)), tuple(used), dict(constants), wanted)


def _repeated(value: Any, n: int) -> pa.Array:
    return pa.nulls(n, pa.string()) if value is None else pa.repeat(pa.scalar(value), n)


def _moment(text: str, date: str | None, spec: FeatureSpec) -> datetime:
    """The scoring time: with its own zone if it names one, else in the zone of each field."""
    if "{date}" in text and date is None:
        raise ConfigError(
            "catalog.time", expected="a day, because it holds {date}", found="none", fix="Pass --date YYYY-MM-DD."
        )
    moment = moment_of(text, date)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    for field in spec.fields:
        if isinstance(field.config, TimeField) and moments(pa.array([moment]), field.config.of)[2].any():
            raise ConfigError(
                "catalog.time",
                expected=f"a moment from {field.config.of.earliest} to {field.config.of.latest}",
                found=moment.isoformat(),
                fix=f"Correct it, or move the bounds in `time` (field {field.name!r}).",
            )
    return moment
