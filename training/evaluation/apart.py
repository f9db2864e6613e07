"""Rows apart: ranking within groups, and the metrics of slices.

With rows of a group g in the order of their logits, W_g their weight, and groups that have rows of both classes:

- group_auc: sum W_g AUC_g / sum W_g (GAUC; Zhou et al. 2018), ties counting half
- group_ndcg: mean over groups of sum of 1 / log2(place + 1) over positives, over that of the best order; rows of one
  logit share the mean of their places' terms (McSherry and Najork 2008)

A model that only knows which users click gains nothing here, as it does in AUC. Errors are those of ratios over
independent groups. Groups need all of their rows: 20 bytes a row are held. Slices are sums alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldwise.features.arrays import Float32, Float64, Int32, Int64
from fieldwise.training.data.batch import Batch
from fieldwise.training.evaluation.cuts import Columns
from fieldwise.training.evaluation.paired import SLICE_BLOCKS, SUMS, interval, jackknifed


class Groups:
    """Rows of groups, collected; a group is a local index of one field, or a value of a column beside the rows."""

    def __init__(self, columns: Columns, name: str) -> None:
        self._of = columns.groups(name)
        self._parts: list[tuple[Int64, Float32, Float32, Float32]] = []

    def add(self, batch: Batch, logits: Float32) -> None:
        weight = np.ones(batch.rows, np.float32) if batch.weight is None else batch.weight
        logits = logits + np.float32(0)  # -0.0 is 0.0
        self._parts.append((self._of(batch).copy(), logits, batch.label.copy(), weight.copy()))

    def values(self) -> dict[str, float]:
        """Metrics with their errors, how many ``groups`` have both classes, and the share of weight in them."""
        group, logit, label, weight = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return grouped(group, logit, label, weight.astype(np.float64))


def grouped(group: Int32 | Int64, logit: Float32, label: Float32, weight: Float64) -> dict[str, float]:
    """See the module's docstring; metrics are nan where no group has both classes."""
    order = np.lexsort((logit, group))
    group, logit, y, w = group[order], logit[order], label[order] > 0, weight[order]
    other = np.r_[True, group[1:] != group[:-1]]
    tied = np.flatnonzero(other | np.r_[True, logit[1:] != logit[:-1]])  # runs of one group and logit
    first = np.searchsorted(tied, np.flatnonzero(other))  # a group's first run

    def by_run(values: Any) -> Float64:
        found: Float64 = np.add.reduceat(values.astype(np.float64), tied)
        return found

    def by_group(values: Float64) -> Float64:
        found: Float64 = np.add.reduceat(values, first)
        return found

    positive, negative = by_run(w * y), by_run(w * ~y)
    below = np.cumsum(negative) - negative
    runs = np.diff(np.r_[first, len(tied)])
    below -= np.repeat(below[first], runs)
    right, positives, negatives = by_group(positive * (below + negative / 2)), by_group(positive), by_group(negative)
    rows, hits = by_run(np.ones(len(y))), by_run(y)
    sizes = np.diff(np.r_[tied[first], len(y)])
    discount = np.r_[0.0, np.cumsum(1 / np.log2(np.arange(2, sizes.max() + 2)))]
    end = np.repeat(sizes + tied[first], runs)  # the highest logit is last: places count from there
    last = end - tied
    terms = discount[last] - discount[last - rows.astype(np.int64)]
    ndcg = by_group(hits / rows * terms) / discount[np.maximum(by_group(hits), 1).astype(np.int64)]
    both = positives * negatives > 0
    size = (positives + negatives)[both]
    auc = right[both] / (positives * negatives)[both]
    found = {"groups": float(both.sum()), "grouped": float(size.sum() / w.sum())}
    for name, values, weights in (("group_auc", auc, size), ("group_ndcg", ndcg[both], np.ones(len(size)))):
        found |= {name: math.nan, f"{name}_se": math.nan}
        if len(values):
            mean = weights @ values / weights.sum()
            error = np.sqrt((weights**2) @ (values - mean) ** 2) / weights.sum()
            found |= {name: float(mean), f"{name}_se": float(error)}
    return found


@dataclass(frozen=True)
class Slice:
    """Rows of one value of a field or a column. ``low`` and ``high``: ends of calibration's interval, None where there
    is none."""

    name: str
    rows: int
    positives: int
    label_rate: float
    logloss: float
    normalized_entropy: float | None
    calibration: float | None
    low: float | None
    high: float | None


class Slices:
    """Sums of slices: every value of some fields or columns."""

    def __init__(self, columns: Columns, names: Sequence[str], group: str | None = None) -> None:
        """``group``: what rows belong together by, so that intervals bear their errors being alike."""
        self._cuts = {name: columns.cuts(name) for name in names}
        self._tables = {name: np.zeros((cuts.size * SLICE_BLOCKS, len(SUMS))) for name, cuts in self._cuts.items()}
        self._group = None if group is None else columns.groups(group)
        self._rows = 0

    def add(self, batch: Batch, logits: Float32) -> None:
        z, y = logits.astype(np.float64), batch.label.astype(np.float64)
        w = np.ones(len(z)) if batch.weight is None else batch.weight.astype(np.float64)
        p = 1 / (1 + np.exp(-np.maximum(z, -700.0)))
        columns = [np.ones(len(z)), y > 0, w, w * y, w * (np.logaddexp(0.0, z) - y * z), w * p]
        block = self._rows + np.arange(len(z)) if self._group is None else self._group(batch)
        for name, cuts in self._cuts.items():
            cell = cuts.of(batch) * SLICE_BLOCKS + block % SLICE_BLOCKS
            for at, column in enumerate(columns):
                self._tables[name][:, at] += np.bincount(cell, column, len(self._tables[name]))
        self._rows += batch.rows

    def found(self, confidence: float = 0.95) -> list[Slice]:
        """Those that have rows of any weight, the worst normalized entropy first; those of one class alone last."""
        slices = []
        for name, table in self._tables.items():
            for number, sums in enumerate(table.reshape(-1, SLICE_BLOCKS, len(SUMS))):
                if sums[:, 2].sum() > 0:
                    slices.append(_slice(f"{name} = {self._cuts[name].name(number)}", sums, confidence))
        return sorted(slices, key=lambda each: (-(each.normalized_entropy or -1.0), each.name))


def _slice(name: str, sums: Float64, confidence: float) -> Slice:
    rows, positives, weight, positive, *_ = sums.sum(0)
    ratio, without = jackknifed(sums, "calibration")
    ends = interval(ratio, without, sums[:, 2], (1 + confidence) / 2)  # of two sides
    entropy = jackknifed(sums, "normalized_entropy")[0]

    def plain(value: Any) -> float | None:
        return float(value) if math.isfinite(value) else None

    return Slice(
        name, int(rows), int(positives), float(positive / weight), float(jackknifed(sums, "logloss")[0]),
        plain(entropy), plain(ratio), plain(ends.low), plain(ends.high),
    )  # fmt: skip
