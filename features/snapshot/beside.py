"""Raw columns that travel beside a snapshot's rows: as the XXH64 of their canonical texts, eight bytes each, whatever
they hold. Null and empty texts are one value. Of columns of few values the texts are kept as well, in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Int64
from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.hashing import xxh64_array
from fieldwise.features.columns.text import canonical, texts, valid_utf8
from fieldwise.features.fields.base import Problem
from fieldwise.features.snapshot.manifest import MOST_TEXTS, Beside

Texts = list[list[str] | None]
"""By column its values; None where they are too many, or one is too long."""
_LONGEST = 200


def problems_of(columns: Columns, names: Sequence[str]) -> list[Problem]:
    """Rows with a text that is no UTF-8."""
    bad = {name: ~valid_utf8(texts(columns.array(name))) for name in names}
    return [
        Problem(row, "beside", "undecodable", "", name) for name in names for row in np.flatnonzero(bad[name]).tolist()
    ]


def hashed(columns: Columns, names: Sequence[str]) -> Int64 | None:
    """[n, columns] in Fortran order; None where there are none."""
    if not names:
        return None
    out = np.empty((columns.rows, len(names)), np.int64, order="F")
    for at, name in enumerate(names):
        out[:, at] = xxh64_array(columns.array(name), where=f"beside: {columns.where(name)}").view(np.int64)
    return out


class Values:
    """What the columns hold, while rows arrive."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._found: list[set[str] | None] = [set() for _ in names]

    def add(self, columns: Columns) -> None:
        for at, name in enumerate(self._names):
            if self._found[at] is not None:
                text = canonical(columns.array(name)).cast(pa.large_string())
                self._merge(at, pc.fill_null(text, "").unique().to_pylist())

    def _merge(self, at: int, values: Iterable[str] | None) -> None:
        known = self._found[at]
        if known is not None:
            both = None if values is None else known.union(values)
            few = both is not None and len(both) <= MOST_TEXTS and max(map(len, both), default=0) <= _LONGEST
            self._found[at] = both if few else None

    def told(self) -> Texts:
        """For other processes, and for `merge`."""
        return [None if found is None else sorted(found) for found in self._found]

    def merge(self, told: Texts) -> None:
        """What another task has found."""
        for at, values in enumerate(told):
            self._merge(at, values)

    def beside(self) -> list[Beside]:
        """For the manifest."""
        return [Beside(column=name, values=values) for name, values in zip(self._names, self.told(), strict=True)]
