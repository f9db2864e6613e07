"""A field of numbers in bins."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fieldwise.features.arrays import Bool, Float64
from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.text import numbers
from fieldwise.features.fields.base import BaseField, Encode, Fit, Problem, Slots, problems_of
from fieldwise.features.kernels import numerals
from fieldwise.features.kernels.strings import FIRST

LOG2_SQUARED = (0.0, 1.0, *(2.0 ** math.sqrt(k) for k in range(1, 1025)))
"""Edges of log2-squared bins: below 0; [0, 1); [1, 2); then one bin per step of log2(v)^2 up to v = 2^32."""
WITH_COMMA = re.compile(r"[+-]?\d[\d.]*,\d\d?")
"""Prices as 12,50 and 1.299,00 write them; 1,299 may be one thousand and more."""
DRESSED = re.compile(r"[^\w\s]?\s?\d+(?:,\d{3})*(?:\.\d+)?\s?(?:[^\w\s]|[A-Z]{3})?")
"""1,299.50, $12 and 12 EUR."""
_GROUPED = r"^\s*[+-]?\d{1,3}(?:[. '\x{a0}\x{202f}]\d{3})+(?:,\d*)?\s*$"


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
    decimal: Literal[".", ","] = "."
    """What stands before the fraction in texts. With a comma thousands may be apart by points, blanks or apostrophes:
    ``1.299,50``."""

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

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Specs without the key keep the digest that they had before there was one."""
        found: dict[str, Any] = handler(self)
        if self.decimal == ".":
            found.pop("decimal", None)
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def needs_fit(self) -> bool:
        return self.quantiles is not None

    def check(self, columns: Columns) -> list[Problem]:
        return problems_of(self.name, "bad_number", self._numbers(columns)[1], columns, self.column)

    def _numbers(self, columns: Columns) -> tuple[Float64, Bool]:
        """As ``numbers`` of the column."""
        if self.decimal == "." or not _is_text(columns.kind(self.column)):
            return columns.numbers(self.column)
        texts = columns.array(self.column)
        grouped = pc.match_substring_regex(texts, _GROUPED)
        whole = pc.replace_substring_regex(texts, r"[. '\x{a0}\x{202f}]", "")
        foreign = pc.replace_substring(texts, ".", "?")  # what is no group of thousands is no number either
        return numbers(pc.replace_substring(pc.if_else(grouped, whole, foreign), ",", "."))

    def tally(self, columns: Columns) -> pa.Table:
        """Keys are the top 23 bits of the order-preserving form of float64: sign, exponent, 11 bits of mantissa."""
        values = self._numbers(columns)[0]
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
            if self.decimal == "," or not _is_text(columns.kind(self.column)):
                values, bad = self._numbers(columns)
                numerals.bin_numbers(values, edges, out[0])
                return problems_of(self.name, "bad_number", bad, columns, self.column)
            views, status = columns.texts(self.column), np.empty(columns.rows, np.uint8)
            if not numerals.bin_decimals(views.data, views.start, views.length, edges, small_bins, out[0], status):
                return []
            hard = np.flatnonzero(status == numerals.HARD)
            values = np.array([float(views.bytes_at(row)) for row in hard.tolist()], np.float64)
            out[0][hard] = FIRST + np.searchsorted(edges, values, "right")
            return problems_of(self.name, "bad_number", status == numerals.BAD, columns, self.column)

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        low = fit.edges[index - 1] if index else -math.inf
        high = fit.edges[index] if index < len(fit.edges) else math.inf
        return f"[{low:g}, {high:g})" if index else f"(-inf, {high:g})"

    def told(self, described: Sequence[str], raw: str) -> str:
        return f"{raw} in {described[0]}" if raw else described[0]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


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
