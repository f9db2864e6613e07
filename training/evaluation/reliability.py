"""Reliability by slice: for every value of some fields, what is predicted beside what is observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fieldwise.features.arrays import Float32
from fieldwise.training.data.batch import Batch
from fieldwise.training.evaluation.cuts import Columns
from fieldwise.training.evaluation.metrics import Curve

BINS = 10
"""Of logits, the same for all slices: about equal shares of the first batch."""


class Reliability:
    """Collects the rows that ``evaluate`` lets it ``add``.

    Args:
        names: of fields or columns with few values. ConfigError for any other.
    """

    def __init__(self, columns: Columns, names: Sequence[str]) -> None:
        self._cuts, self._edges = {name: columns.cuts(name) for name in names}, np.empty(0)
        self._sums = {name: np.zeros((cuts.size * BINS, 3)) for name, cuts in self._cuts.items()}  # w, w y, w p

    def add(self, batch: Batch, logits: Float32) -> None:
        if not len(self._edges):
            self._edges = np.quantile(logits, np.linspace(0, 1, BINS + 1)[1:-1])
        y, p = batch.label.astype(np.float64), 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, None)))
        weight = np.ones(batch.rows) if batch.weight is None else batch.weight.astype(np.float64)
        at = np.searchsorted(self._edges, logits, side="right")
        for name, cuts in self._cuts.items():
            cell = cuts.of(batch) * BINS + at
            for sums, column in zip(self._sums[name].T, (weight, weight * y, weight * p), strict=True):
                sums += np.bincount(cell, column, len(sums))

    def by_slice(self) -> dict[str, dict[str, Any]]:
        """By ``field = value`` of those with rows: the curve, the calibration (predicted over observed positives; None
        without any), and ECE over these bins."""
        found = {}
        for name, sums in self._sums.items():
            for number, bins in enumerate(sums.reshape(-1, BINS, 3)):
                weight, positive, predicted = bins[bins[:, 0] > 0].T
                if len(weight):
                    curve = Curve((predicted / weight).tolist(), (positive / weight).tolist(), weight.tolist())
                    found[f"{name} = {self._cuts[name].name(number)}"] = asdict(curve) | {
                        "calibration": float(predicted.sum() / positive.sum()) if positive.sum() > 0 else None,
                        "ece": float(np.abs(predicted - positive).sum() / weight.sum()),
                    }
        return found
