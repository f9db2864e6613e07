"""The embedding table: one float32 matrix for every model of the family."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.jit import inner, kernel, prefetch
from training.threads import team


class EmbeddingTable:
    """``weight`` [rows, width] float32; column 0 (linear) starts at 0, the others uniform of deviation ``scale``.

    A row's start is a function of (seed, row, column) alone, so it depends on no thread count, rank or table size, and
    the rows of a grown table are reproducible. On CPU the memory is numpy's (huge pages where the system has them), and
    ``array`` is the same memory for compiled kernels.
    """

    def __init__(self, rows: int, width: int, *, seed: int = 0, scale: float = 0.0) -> None:
        self.seed, self.scale = seed, scale
        self.array = np.empty((rows, width), np.float32)
        _fill(self.array, 0, np.uint64(seed), np.float32(scale * 3**0.5))
        self.weight = torch.from_numpy(self.array)

    @property
    def rows(self) -> int:
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        return self.weight.shape[1]

    def gather(self, ids: Tensor) -> Tensor:
        """Rows [U, width] of distinct ``ids``: a fresh leaf that requires grad."""
        if self.weight.device.type != "cpu":
            return self.weight.index_select(0, ids).requires_grad_()
        weight, rows, out = self.weight.numpy().reshape(-1), ids.numpy(), torch.empty(len(ids), self.width)
        into = out.numpy().reshape(-1)
        team(len(rows)).spread(len(rows), lambda first, last: _gather(first, last, weight, self.width, rows, into))
        return out.requires_grad_()

    def grow(self, rows: int) -> None:
        """Append rows up to ``rows``; those already there keep their weights."""
        grown = np.empty((rows, self.width), np.float32)
        grown[: self.rows] = self.array
        _fill(grown, self.rows, np.uint64(self.seed), np.float32(self.scale * 3**0.5))
        self.array = grown
        self.weight = torch.from_numpy(grown)


def zeros(*shape: int) -> npt.NDArray[np.float32]:
    """Zeros on huge pages: numpy asks for them in ``empty`` and not in ``zeros``, and rows are read at random."""
    array = np.empty(shape, np.float32)
    array.fill(0.0)
    return array


@kernel
def _gather(first, last, weight, width, ids, out):
    ahead = 4 + 64 // width
    for u in range(first, last):
        if u + ahead < last:
            for j in range(0, width, 16):
                prefetch(weight, ids[u + ahead] * width + j)
        at = ids[u] * width
        for j in range(width):
            out[u * width + j] = weight[at + j]


@kernel
def _fill(weight, first, seed, bound):
    """weight[r, c] = bound * uniform(-1, 1) from the SplitMix64 of (seed, r, c)."""
    for r in range(first, weight.shape[0]):
        start = _mix(_mix(seed) ^ np.uint64(r))
        for c in range(weight.shape[1]):
            top = _mix(start + np.uint64(c) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)  # 24 bits
            weight[r, c] = bound * (np.float32(top) * np.float32(2.0**-23) - np.float32(1.0))
        weight[r, 0] = 0.0


@inner
def _mix(z):
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
