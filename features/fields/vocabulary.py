"""A field with a row for every frequent value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.text import Texts
from fieldwise.features.columns.vocabulary import TextIndex, Vocabulary, sum_texts
from fieldwise.features.fields.base import MAX_VALUES, Encode, Fit, Problem, Slots
from fieldwise.features.fields.valued import ValuedField


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

    def told(self, described: Sequence[str], raw: str) -> str:
        """Where values are new to the model, what they are; of flags the names of the set ones say it."""
        new = "unseen" in described and self.flags is None and raw
        return f"{raw} (unseen)" if new and len(described) == 1 else super().told(described, raw)
