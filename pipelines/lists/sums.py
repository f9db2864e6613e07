"""Sums of contexts' metrics in blocks of contexts, and intervals by the bootstrap over them.

A context's hash says which block it is in, so blocks are samples of equal law, and contexts that meet in one only make
a larger one. Sums are whole numbers of 2^-36, so that they are the same in whatever order tasks add them up; a mean is
off by less than 2^-37. A figure of all contexts is sum / count over the blocks; the bootstrap (Efron and Tibshirani
1993, 13.3) draws as many blocks as there are, with replacement, a thousand times, and reads the interval's ends off the
quantiles. Figures of one draw belong together, so differences of two lists have intervals of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fieldwise.features.arrays import Float64, Int64
from fieldwise.pipelines.lists.described import require_few

BLOCKS, SLICE_BLOCKS = 1024, 64
"""Of all contexts, and of a slice's."""
_UNIT = float(1 << 36)
_DRAWS, _SEED = 1000, 7


class Estimate(NamedTuple):
    """A mean over contexts and the ends of its interval; these are None where there is one block only."""

    value: float
    low: float | None
    high: float | None


class Sums:
    """Sums by value of one column of slices: ``table`` [values, blocks, 1 + metrics], contexts counted in the first.

    Args:
        key: of the config, for the error of a column with too many values.
    """

    def __init__(self, column: str, blocks: int, metrics: int, key: str) -> None:
        self.column, self.values, self._key = column, dict[str, int](), key
        self.table: Int64 = np.zeros((0, blocks, 1 + metrics), np.int64)

    def codes(self, values: Sequence[str]) -> Int64:
        """A number for each value, with room for its sums."""
        found = np.array([self.values.setdefault(value, len(self.values)) for value in values], np.int64)
        more = len(self.values) - len(self.table)
        if more:
            require_few(self._key, self.column, len(self.values))
            self.table = np.concatenate([self.table, np.zeros((more, *self.table.shape[1:]), np.int64)])
        return found

    def add(self, code: Int64, block: Int64, metrics: Float64) -> None:
        """Contexts of one or several slices; ``metrics`` [n, metrics] in [0, 2^13], n at most 2^17: sums are exact."""
        values, blocks, _ = self.table.shape
        cell = code * blocks + block % blocks
        whole = np.rint(metrics * _UNIT)
        self.table[..., 0] += np.bincount(cell, minlength=values * blocks).reshape(values, blocks)
        for at, column in enumerate(whole.T, 1):
            self.table[..., at] += np.bincount(cell, column, values * blocks).reshape(values, blocks).astype(np.int64)

    def merge(self, values: Sequence[str], table: Int64) -> None:
        """What another task has added up."""
        codes = self.codes(values)
        self.table[codes] += table.reshape(len(values), *self.table.shape[1:])


def estimates(table: Int64, confidence: float, weights: Float64) -> list[Estimate]:
    """Of every column of ``weights`` [metrics, columns], linear combinations of metrics: means with intervals.

    Args:
        table: of one slice [blocks, 1 + metrics], with at least one context.
    """
    used = table[table[:, 0] > 0].astype(np.float64)
    count, sums = used[:, 0], used[:, 1:] / _UNIT @ weights
    value = sums.sum(0) / count.sum()
    if len(used) < 2:
        return [Estimate(float(each), None, None) for each in value]
    drawn = np.random.default_rng(_SEED).integers(0, len(used), (_DRAWS, len(used)))
    times = np.stack([np.bincount(row, minlength=len(used)) for row in drawn]).astype(np.float64)
    means = times @ sums / (times @ count)[:, None]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [Estimate(*map(float, each)) for each in zip(value, low, high, strict=True)]
