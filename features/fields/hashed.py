"""Fields whose values meet in buckets: single columns, and crosses of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.hashing import SEED
from fieldwise.features.columns.text import canonical, texts
from fieldwise.features.fields.base import MAX_VALUES, BaseField, Encode, Fit, Problem, Slots
from fieldwise.features.fields.valued import ValuedField
from fieldwise.features.kernels import strings
from fieldwise.features.schema import Names


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
                strings.hash_slots(views.data, views.start, views.length, SEED, np.uint64(fit.values), slot)
            return self.check(columns)

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        return f"bucket {index}"

    def told(self, described: Sequence[str], raw: str) -> str:
        return raw or ", ".join(described)


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
            strings.hash_slots(joined.data, joined.start, joined.length, SEED, np.uint64(fit.values), out[0])
            return []

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        return f"bucket {index}"

    def told(self, described: Sequence[str], raw: str) -> str:
        return raw or ", ".join(described)
