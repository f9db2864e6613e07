"""The embedding table: one float32 matrix for every model of the family."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.jit import inner, kernel, prefetch
from training.shared import SharedMemory
from training.threads import team
from training.world import World


class EmbeddingTable:
    """``weight`` [rows, width] float32; column 0 (linear) starts at 0, the others uniform of deviation ``scale``.

    A row's start is a function of (seed, row, column) alone, so it depends on no thread count, rank or table size.

    Args:
        shared: memory of ranks that have this one table together. Whoever writes to all of it writes ``mine``, its own
            share of the rows, and meets the others before anyone reads.
    """

    def __init__(
        self, rows: int, width: int, *, seed: int = 0, scale: float = 0.0, shared: SharedMemory | None = None
    ) -> None:
        self.shared = shared
        self.mine = slice(*share(rows, shared.world) if shared else (0, rows))
        array = np.empty((rows, width), np.float32) if shared is None else shared.zeros(rows, width)
        _fill(array, self.mine.start, self.mine.stop, np.uint64(seed), np.float32(scale * 3**0.5))
        self.weight = torch.from_numpy(array)

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
        team(len(rows)).spread(
            len(rows), lambda first, last: _gather(first, last, weight, self.width, rows, into), self.width
        )
        return out.requires_grad_()

    def beside(self, width: int) -> Tensor:
        """Zeros [rows, width] in the same kind of memory, on the same device."""
        make = zeros if self.shared is None else self.shared.zeros
        return torch.from_numpy(make(self.rows, width)).to(self.weight.device)

    def copy_(self, weight: Tensor) -> None:
        """Take over weights of the same shape."""
        self.weight[self.mine].copy_(weight[self.mine])


class Parameter:
    """A dense parameter as an optimizer of rows sees it."""

    width = 1

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()

    def beside(self, width: int) -> Tensor:
        """Zeros in the parameter's own shape, on its device."""
        return torch.zeros_like(self.weight)


def share(count: int, world: World) -> tuple[int, int]:
    """First and last of ``count`` things that fall to this rank when every rank does a part of them."""
    return count * world.rank // world.size, count * (world.rank + 1) // world.size


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
def _fill(weight, first, last, seed, bound):
    """weight[r, c] = bound * uniform(-1, 1) from the SplitMix64 of (seed, r, c)."""
    for r in range(first, last):
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
