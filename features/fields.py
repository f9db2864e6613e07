"""Field kinds: what a user writes about a field, and what the field does. A new kind is one class and one line below.

Local index of a slot: 0 padding, 1 missing (null or empty), 2 unseen or rare, values from 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from features import kernels, value_kernels
from features.errors import ConfigError
from features.field import MAX_VALUES, BaseField, Encode, Fit, Problem, Slots, ValuedField, problems_of
from features.hashing import SEED
from features.kernels import FIRST, MISSING
from features.moment import PARTS, Time, part_name, part_of, to_local
from features.schema import Names, expand_names
from features.text import Columns, Texts, canonical, texts
from features.vocabulary import TextIndex, Vocabulary, sum_texts


class HashField(ValuedField):
    """local = 3 + XXH64(value, seed 42) mod buckets. Needs no fitting; any value has a row from the first day."""

    kind: Literal["hash"]
    hashed: ClassVar[bool] = True
    buckets: Annotated[int, Field(ge=1, le=MAX_VALUES)] = 65536
    """Rows of the table. Values that meet in a bucket share its row."""

    def fit(self, tally: pa.Table | None) -> Fit:
        return Fit(self.buckets)

    def encoder(self, fit: Fit) -> Encode:
        def encode(columns: Columns, out: Slots) -> list[Problem]:
            for views, slot in zip(self.texts(columns), out, strict=True):
                kernels.hash_slots(views.data, views.start, views.length, SEED, np.uint64(fit.values), slot)
            return self.check(columns)

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        return f"bucket {index}"


class VocabularyField(ValuedField):
    """One row per value seen at least ``min_count`` times in the training rows; the rest are unseen.

    Ordered by count descending, then bytes. Rare values train the row of the unseen ones.
    """

    kind: Literal["vocabulary"]
    fitted: ClassVar[bool] = True
    min_count: Annotated[int, Field(ge=1)] = 4
    """Values seen less often are treated as unseen."""
    max_size: Annotated[int, Field(ge=1, le=MAX_VALUES)] | None = None
    """Most values kept, the most frequent ones."""

    def tally(self, columns: Columns) -> pa.Table:
        slots = self.texts(columns)
        start, length = (np.concatenate([getattr(views, part) for views in slots]) for part in ("start", "length"))
        values = Texts(slots[0].data, start, length)
        first, count = sum_texts(values)
        return pa.table({"key": values.take(first).to_arrow().view(pa.binary()), "count": count})

    def fit(self, tally: pa.Table | None) -> Fit:
        assert tally is not None
        kept = tally.filter(pc.greater_equal(tally["count"], self.min_count))
        kept = kept.sort_by([("count", "descending"), ("key", "ascending")])
        kept = kept.slice(0, min(self.max_size or MAX_VALUES, MAX_VALUES))
        values = pc.cast(pc.cast(kept["key"], pa.large_binary()), pa.large_string())
        single = values.combine_chunks() if values.num_chunks else pa.array([], pa.large_string())
        return Fit(kept.num_rows, vocabulary=Vocabulary(single, kept["count"].to_numpy()))

    def encoder(self, fit: Fit) -> Encode:
        assert fit.vocabulary is not None
        index = TextIndex(fit.vocabulary.values)

        def encode(columns: Columns, out: Slots) -> list[Problem]:
            for views, slot in zip(self.texts(columns), out, strict=True):
                index.find(views, slot)
            return self.check(columns)

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        assert fit.vocabulary is not None
        return str(fit.vocabulary.values[index].as_py())


LOG2_SQUARED = (0.0, 1.0, *(2.0 ** math.sqrt(k) for k in range(1, 1025)))
"""Edges of log2-squared bins: below 0; [0, 1); [1, 2); then one bin per step of log2(v)^2 up to v = 2^32."""


class NumberField(BaseField):
    """local = 3 + number of edges <= value. At most one of quantiles, edges, log2_squared."""

    kind: Literal["number"]
    column: str = ""
    """Raw column. Default: the field's name."""
    quantiles: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Number of bins of equal share, fitted on the training rows (values rounded to 12 significant bits)."""
    edges: tuple[float, ...] | None = None
    """Bin edges, increasing; a value equal to an edge belongs to the bin above it."""
    log2_squared: bool = False
    """floor(log2(value)^2) above 2, as in Criteo's winning solution; the default of counts and other long tails."""

    @model_validator(mode="before")
    @classmethod
    def _column(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        chosen = [key for key in ("quantiles", "edges", "log2_squared") if data.get(key) not in (None, False)]
        if len(chosen) > 1:
            raise ValueError(f"one of {' and '.join(chosen)}")
        return {**data, "column": data.get("column") or data.get("name"), **({} if chosen else {"log2_squared": True})}

    @model_validator(mode="after")
    def _increasing(self) -> NumberField:
        edges = self.edges
        if edges is not None:
            if not edges or not all(map(math.isfinite, edges)):
                raise ValueError("edges that are finite numbers, at least one")
            if any(b <= a for a, b in pairwise(edges)):
                raise ValueError("edges that increase")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def needs_fit(self) -> bool:
        return self.quantiles is not None

    def check(self, columns: Columns) -> list[Problem]:
        return problems_of(self.name, "bad_number", columns.numbers(self.column)[1], columns, self.column)

    def tally(self, columns: Columns) -> pa.Table:
        """Keys are the top 23 bits of the order-preserving form of float64: sign, exponent, 11 bits of mantissa."""
        values = columns.numbers(self.column)[0]
        bits = (values[~np.isnan(values)] + 0.0).view(np.uint64)
        ordered = np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63)) >> np.uint64(41)
        keys, counts = np.unique(ordered, return_counts=True)
        packed = [int(key).to_bytes(3, "big") for key in keys]
        return pa.table({"key": pa.array(packed, pa.binary()), "count": pa.array(counts, pa.int64())})

    def fit(self, tally: pa.Table | None) -> Fit:
        if self.quantiles is None:
            edges = self.edges if self.edges is not None else LOG2_SQUARED
        else:
            assert tally is not None
            edges = _quantile_edges(tally.sort_by("key"), self.quantiles)
        return Fit(len(edges) + 1, edges=edges)

    def encoder(self, fit: Fit) -> Encode:
        edges = np.array(fit.edges, np.float64)
        small_bins = (FIRST + np.searchsorted(edges, np.arange(4096.0), "right")).astype(np.int32)

        def encode(columns: Columns, out: Slots) -> list[Problem]:
            kind = columns.kind(self.column)
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                values, bad = columns.numbers(self.column)
                value_kernels.bin_numbers(values, edges, out[0])
                return problems_of(self.name, "bad_number", bad, columns, self.column)
            views, status = columns.texts(self.column), np.empty(columns.rows, np.uint8)
            if not value_kernels.bin_decimals(views.data, views.start, views.length, edges, small_bins, out[0], status):
                return []
            hard = np.flatnonzero(status == value_kernels.HARD)
            values = np.array([float(views.bytes_at(row)) for row in hard], np.float64)
            out[0][hard] = FIRST + np.searchsorted(edges, values, "right")
            return problems_of(self.name, "bad_number", status == value_kernels.BAD, columns, self.column)

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        low = fit.edges[index - 1] if index else -math.inf
        high = fit.edges[index] if index < len(fit.edges) else math.inf
        return f"[{low:g}, {high:g})" if index else f"(-inf, {high:g})"


class TimeField(BaseField):
    """local = 3 + the part of a moment in its zone."""

    kind: Literal["time"]
    part: Literal["minute", "hour", "weekday", "hour_of_week", "day", "month"]
    """weekday counts from Monday; day is the day of the month."""
    of: Time
    """Column or time block. Default: the config's ``time``."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.of.column,)

    def check(self, columns: Columns) -> list[Problem]:
        return problems_of(self.name, "bad_time", columns.moments(self.of)[2], columns, self.of.column)

    def fit(self, tally: pa.Table | None) -> Fit:
        return Fit(PARTS[self.part])

    def encoder(self, fit: Fit) -> Encode:
        def encode(columns: Columns, out: Slots) -> list[Problem]:
            moments, missing, _ = columns.moments(self.of)
            out[0] = np.where(missing, MISSING, FIRST + part_of(to_local(moments, self.of.zone), self.part))
            return self.check(columns)

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        return part_name(self.part, index)


class CrossField(BaseField):
    """local = 3 + XXH64(texts of the raw columns joined by U+001F) mod buckets; missing when all parts are."""

    kind: Literal["cross"]
    hashed: ClassVar[bool] = True
    of: Annotated[Names, Field(min_length=2)]
    """Raw columns."""
    buckets: Annotated[int, Field(ge=1, le=MAX_VALUES)] = 65536
    """Rows of the table."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.of)

    def fit(self, tally: pa.Table | None) -> Fit:
        return Fit(self.buckets)

    def encoder(self, fit: Fit) -> Encode:
        def encode(columns: Columns, out: Slots) -> list[Problem]:
            parts = [pc.fill_null(canonical(columns.array(name), columns.where(name)), "") for name in self.of]
            joined = texts(pc.binary_join_element_wise(*parts, "\x1f"))
            joined.length[joined.length == len(parts) - 1] = 0
            kernels.hash_slots(joined.data, joined.start, joined.length, SEED, np.uint64(fit.values), out[0])
            return []

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        return f"bucket {index}"


AnyField = Annotated[
    HashField | VocabularyField | NumberField | TimeField | CrossField,
    Field(discriminator="kind"),
]
"""The registry of kinds."""


def _quantile_edges(tally: pa.Table, quantiles: int) -> tuple[float, ...]:
    """Lower bounds of the keys at which the running count passes total * q / quantiles; ties make fewer edges."""
    if tally.num_rows == 0:
        return (0.0,)
    ordered = np.array([int.from_bytes(key, "big") for key in tally["key"].to_pylist()], np.uint64) << np.uint64(41)
    bits = np.where(ordered >> np.uint64(63), ordered & np.uint64((1 << 63) - 1), ~ordered)
    running = np.cumsum(tally["count"].to_numpy())
    targets = running[-1] * np.arange(1, quantiles) / quantiles
    chosen = np.unique(np.searchsorted(running, targets, "right"))
    edges = bits.view(np.float64)[chosen[chosen > 0]]
    return tuple(float(edge) for edge in edges if math.isfinite(edge)) or (0.0,)


def expand_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Several fields declared at once become single ones; time fields take over the config's ``time`` block."""
    if not isinstance(config.get("fields"), list):
        return config
    moment = config.get("time")
    fields: list[Any] = []
    for position, item in enumerate(config["fields"]):
        if not isinstance(item, dict):
            fields.append(item)
            continue
        where = f"fields.{position}"
        try:
            names = expand_names(item["names"] if "names" in item else item.get("name"))
        except ValueError as error:
            raise ConfigError(where, expected="fewer fields", found=str(error), fix="Declare fewer.") from None
        rest = {key: value for key, value in item.items() if key not in ("name", "names")}
        if rest.get("kind") == "time" and moment is None and rest.get("of") is None:
            found, fix = "no `time`", "Name it: `time: COLUMN`, or give the field an `of`."
            raise ConfigError(where, expected="a column of moments to take its part of", found=found, fix=fix)
        if rest.get("kind") == "time" and moment is not None:
            column = moment.get("column") if isinstance(moment, dict) else moment
            rest["of"] = moment if rest.get("of") in (None, column) else rest["of"]
        if "names" in item and "name" in item:
            raise ConfigError(where, expected="either name or names", found="both", fix="Remove one.")
        if isinstance(names, list) and "column" in rest:
            found, fix = f"`column` for {names[0]}, ... declared together", "Remove it, or declare them one by one."
            raise ConfigError(where, expected="each field to read the column of its name", found=found, fix=fix)
        fields += [{"name": name, **rest} for name in (names if isinstance(names, list) else [names])]
    return {**config, "fields": fields}


def check_fields(fields: Sequence[BaseField]) -> None:
    """Names are unique, and a shared index space exists, is of the same kind and is not itself borrowed."""
    by_name: dict[str, BaseField] = {}
    for field in fields:
        if field.name in by_name:
            raise ConfigError(
                f"fields.{field.name}", expected="each name once", found=f"{field.name!r} declared twice",
                fix="Rename one, and name its `column`.",
            )  # fmt: skip
        by_name[field.name] = field
    for field in fields:
        owner = by_name.get(field.source)
        where, fix = f"fields.{field.name}.shares", "Name another field, or remove `shares`."
        if owner is None:
            raise ConfigError(where, expected="a field", found=f"{field.source!r}, which is no field", fix=fix)
        if type(owner) is not type(field) or owner.source != owner.name:
            raise ConfigError(
                where, expected="a field of the same kind that shares none itself", found=repr(field.source), fix=fix
            )
