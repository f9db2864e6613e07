"""Reliability by slice: for every value of some fields, what is predicted beside what is observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fieldwise.features.arrays import Float32
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.data.batch import Batch
from fieldwise.training.evaluation.metrics import Curve
from fieldwise.training.evaluation.paired import MOST_VALUES, slot_of

BINS = 10
"""Of logits, the same for all slices: about equal shares of the first batch."""


class Reliability:
    """Collects the rows that ``evaluate`` lets it ``add``.

    Args:
        fields: of one value and at most 1,000 local indices. ConfigError for any other.
    """

    def __init__(self, spec: FeatureSpec, fields: Sequence[str]) -> None:
        self._slots = {name: slot_of(spec, name, "evaluation.slices", MOST_VALUES) for name in fields}
        self._spec, self._edges = spec, np.empty(0)
        self._sums = {name: np.zeros((spec[name].size * BINS, 3)) for name in fields}  # w, w y, w p

    def add(self, batch: Batch, logits: Float32) -> None:
        if not len(self._edges):
            self._edges = np.quantile(logits, np.linspace(0, 1, BINS + 1)[1:-1])
        y, p = batch.label.astype(np.float64), 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, None)))
        weight = np.ones(batch.rows) if batch.weight is None else batch.weight.astype(np.float64)
        at = np.searchsorted(self._edges, logits, side="right")
        for name, slot in self._slots.items():
            cell = batch.slots[:, slot].astype(np.int64) * BINS + at
            for sums, column in zip(self._sums[name].T, (weight, weight * y, weight * p), strict=True):
                sums += np.bincount(cell, column, len(sums))

    def by_slice(self) -> dict[str, dict[str, Any]]:
        """By ``field = value`` of those with rows: the curve, the calibration (predicted over observed positives; None
        without any), and ECE over these bins."""
        found = {}
        for name, sums in self._sums.items():
            for local, bins in enumerate(sums.reshape(-1, BINS, 3)):
                weight, positive, predicted = bins[bins[:, 0] > 0].T
                if len(weight):
                    curve = Curve((predicted / weight).tolist(), (positive / weight).tolist(), weight.tolist())
                    found[f"{name} = {self._spec.value_of(name, local)}"] = asdict(curve) | {
                        "calibration": float(predicted.sum() / positive.sum()) if positive.sum() > 0 else None,
                        "ece": float(np.abs(predicted - positive).sum() / weight.sum()),
                    }
        return found
