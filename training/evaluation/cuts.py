"""What rows are told apart by: the local indices of a field of one value, or a raw column beside the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fieldwise.features.arrays import Int64
from fieldwise.features.columns.hashing import xxh64_array
from fieldwise.features.errors import ConfigError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import Beside
from fieldwise.training.data.batch import Batch
from fieldwise.training.evaluation.paired import MOST_VALUES, slot_of


@dataclass(frozen=True)
class Cuts:
    """Every value of a column has a number below ``size`` and a name."""

    size: int
    of: Callable[[Batch], Int64]
    """A batch's numbers."""
    name: Callable[[int], str]


class Columns:
    """Of a spec's rows, by their names: columns beside the rows, else fields.

    Args:
        beside: those that travel with the rows to be looked at.
        wanted: names that will be asked for; the columns among them are ``read``, as places in ``beside``.
    """

    def __init__(self, spec: FeatureSpec, beside: Sequence[Beside] = (), wanted: Sequence[str] = ()) -> None:
        self._spec = spec
        self.read = [at for at, column in enumerate(beside) if column.column in wanted]
        self._place = {beside[at].column: place for place, at in enumerate(self.read)}
        self._values = {column.column: column.values for column in beside}

    def groups(self, name: str) -> Callable[[Batch], Int64]:
        """Numbers that are the same where rows are of one group. ConfigError for a field of several values."""
        place = self._place.get(name)
        if place is not None:
            return lambda batch: _beside(batch, place)
        slot = slot_of(self._spec, name, "evaluation.group")
        return lambda batch: batch.slots[:, slot].astype(np.int64)

    def cuts(self, name: str) -> Cuts:
        """ConfigError for a field of several values, and for a field or column of too many different ones."""
        place = self._place.get(name)
        if place is None:
            slot = slot_of(self._spec, name, "evaluation.slices", MOST_VALUES)
            return Cuts(
                self._spec[name].size,
                lambda batch: batch.slots[:, slot].astype(np.int64),
                lambda number: self._spec.value_of(name, number),
            )
        values = self._values[name]
        if values is None:
            raise ConfigError(
                "evaluation.slices", expected=f"a column of at most {MOST_VALUES:,} values",
                found=f"{name}, which has more, or longer ones than a name may be",
                fix="Slices are for few values: name another column.",
            )  # fmt: skip
        hashes = xxh64_array(pa.array(values, pa.large_string())).view(np.int64)
        order = np.argsort(hashes)
        return Cuts(
            len(values),
            lambda batch: order[np.searchsorted(hashes, _beside(batch, place), sorter=order)],
            lambda number: values[number] or "missing",
        )


def _beside(batch: Batch, place: int) -> Int64:
    assert batch.beside is not None
    return batch.beside[:, place]
