"""Whether one setting is better than another beyond chance, where validation rows are not independent.

A user's rows of one day rise and fall together, and so do an item's. Which field clusters them nobody says beforehand,
so each field of one value is taken as the clusters in turn, and rows that are equal, which says what chance alone does
to independent ones. The difference of two losses has to lie beyond its interval in all of them: standard errors robust
to clusters are reported for the clustering that makes them largest (Cameron, Gelbach & Miller 2011; Cameron & Miller
2015). The interval is `training.evaluation.paired`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fieldwise.features.arrays import Float32, Float64
from fieldwise.features.columns.hashing import xxh64_rows
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.data.batch import Batch
from fieldwise.training.evaluation.paired import effective, interval
from fieldwise.training.ranks.world import World

BLOCKS = 32
"""Of a clustering: values with equal local index modulo this are one; a power of two."""
_SEED = 1
"""Of the hash by which equal rows are in one block, whoever reads them."""
LEAST_CLUSTERS = 10.0
"""Effective blocks of a field that can say anything; fields of few values are no clusters."""
CONFIDENCE = 0.8413
"""One-sided: of one standard error, the customary rule for choosing a model (Breiman et al. 1984)."""


class ClusteredLoss:
    """Weight and loss of validation rows by clustering (fields, then rows) and block: an observer of an evaluation."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._slots = [field.first_slot for field in spec.fields if field.slots == 1]
        self._sums = self._none()

    def _none(self) -> Float64:
        return np.zeros((2, len(self._slots) + 1, BLOCKS))

    def add(self, batch: Batch, logits: Float32) -> None:
        y, z = batch.label.astype(np.float64), logits.astype(np.float64)
        weight = np.ones(len(y)) if batch.weight is None else batch.weight.astype(np.float64)
        loss = weight * (np.logaddexp(0.0, z) - y * z)
        fields = [batch.slots[:, slot] & (BLOCKS - 1) for slot in self._slots]
        row = xxh64_rows(np.ascontiguousarray(batch.slots).view(np.uint8), _SEED) & np.uint64(BLOCKS - 1)
        for at, block in enumerate([*fields, row.astype(np.int64)]):
            for sums, values in zip(self._sums[:, at], (weight, loss), strict=True):
                sums += np.bincount(block, values, BLOCKS)

    def take(self, world: World) -> list[Any]:
        """[2, F + 1, BLOCKS] of all ranks since the last time, as JSON keeps it."""
        sums, self._sums = self._sums, self._none()
        taken: list[Any] = world.sum(sums).tolist()
        return taken


def surely_lower(after: Sequence[Any], before: Sequence[Any]) -> bool:
    """Whether the loss of ``after`` is lower than that of ``before`` beyond chance, whatever field clusters the rows:
    both what `ClusteredLoss.take` gave for the same rows."""
    (weight, loss), (_, other) = np.asarray(after), np.asarray(before)
    gap = loss - other  # [F + 1, BLOCKS]
    total, weights = gap.sum(-1), weight.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):  # without a block that holds everything
        without = (total[:, None] - gap) / (weights[:, None] - weight)
    high = interval(total / weights, without, weight, CONFIDENCE).high
    clusters = effective(weight) >= LEAST_CLUSTERS
    clusters[-1] = True  # there is always something that a gain must be beyond
    return bool(np.all(high[clusters] < 0))
