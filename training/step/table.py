"""The embedding table: one matrix for every model of the family."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fieldwise.features.arrays import zeros
from fieldwise.features.errors import ConfigError
from fieldwise.training.kernels.table import fill_rows, gather_rows
from fieldwise.training.ranks.shared import SharedMemory
from fieldwise.training.ranks.world import World
from fieldwise.training.rounding import rounded
from fieldwise.training.threads import team

_KEPT: dict[torch.dtype, type] = {torch.float32: np.float32, torch.bfloat16: np.int16}
"""As what numpy, which has no bfloat16, keeps a table's numbers."""


_BITS = {torch.float32: torch.float32, torch.bfloat16: torch.int16}


class EmbeddingTable:
    """``weight`` [rows, width]; column 0 (linear) starts at 0, the others uniform of deviation ``scale``.

    A row's start is a function of (seed, row, column) alone, so it depends on no thread count, rank or table size.

    Args:
        dtype: torch.float32, or torch.bfloat16 with updates rounded at random (`training.rounding`).
        shared: memory of ranks that have this one table together. Whoever writes to all of it writes ``mine``, its own
            share of the rows, and meets the others before anyone reads.

    Raises ConfigError for bfloat16 where a row is one number.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        *,
        seed: int = 0,
        scale: float = 0.0,
        dtype: torch.dtype = torch.float32,
        shared: SharedMemory | None = None,
    ) -> None:
        self.shared = shared
        self.mine = slice(*share(rows, shared.world) if shared else (0, rows))
        if dtype != torch.float32 and width == 1:
            raise ConfigError(
                "training.table",
                expected="float32 for a model without latent weights",
                found=str(dtype).removeprefix("torch."),
                fix="Remove training.table.",
            )
        kept = _KEPT[dtype]
        array = np.empty((rows, width), kept) if shared is None else shared.zeros(rows, width, dtype=kept)
        first, last = self.mine.start, self.mine.stop
        fill_rows(array.reshape(-1), first, last, width, np.uint64(seed), np.float32(scale * 3**0.5))
        self.weight = torch.from_numpy(array).view(dtype)

    @property
    def rows(self) -> int:
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        return self.weight.shape[1]

    @property
    def flat(self) -> npt.NDArray[Any]:
        """All numbers as kernels take them, of a table on the CPU: float32, or the bits of bfloat16 as int16."""
        return _flat(self.weight)

    def gather(self, ids: Tensor) -> Tensor:
        """Rows [U, width] float32 of distinct ``ids``: a fresh leaf that requires grad."""
        if self.weight.device.type != "cpu":
            return self.weight.index_select(0, ids).float().requires_grad_()
        weight, rows, out = self.flat, ids.numpy(), torch.empty(len(ids), self.width)
        into = out.numpy().reshape(-1)
        team(len(rows)).spread(
            len(rows), lambda first, last: gather_rows(first, last, weight, self.width, rows, into), self.width
        )
        return out.requires_grad_()

    def put(self, ids: Tensor, rows: Tensor, step: int) -> None:
        """Overwrite the rows of distinct ``ids`` by float32 [U, width]; ``step``: see `training.rounding`."""
        self.weight[ids] = rows if self.weight.dtype == torch.float32 else rounded(rows, ids, step)

    def beside(self, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Zeros [rows, width] in the same kind of memory, on the same device."""
        make = zeros if self.shared is None else self.shared.zeros
        return torch.from_numpy(make(self.rows, width, dtype=_KEPT[dtype])).view(dtype).to(self.weight.device)

    def copy_(self, weight: Tensor) -> None:
        """Take over weights of the same shape."""
        copy(weight[self.mine], self.weight[self.mine])


class Parameter:
    """A dense parameter as an optimizer of rows sees it."""

    width = 1

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()

    def beside(self, width: int) -> Tensor:
        """Zeros in the parameter's own shape, on its device."""
        return torch.zeros_like(self.weight)


def copy(weights: Tensor, into: Tensor) -> None:
    """``into[...] = weights``; of two alike by our own threads, since torch's wait for cores that others use."""
    alike = all(
        (of.device.type, of.dtype, of.shape, of.is_contiguous()) == ("cpu", into.dtype, into.shape, True)
        for of in (weights, into)
    )
    if not alike or into.dtype not in _BITS:
        into.copy_(weights)
        return
    source, target = _flat(weights), _flat(into)
    team(len(source)).spread(len(source), lambda first, last: np.copyto(target[first:last], source[first:last]), 2)


def _flat(weights: Tensor) -> npt.NDArray[Any]:
    return weights.view(_BITS[weights.dtype]).numpy().reshape(-1)


def share(count: int, world: World) -> tuple[int, int]:
    """First and last of ``count`` things that fall to this rank when every rank does a part of them."""
    return count * world.rank // world.size, count * (world.rank + 1) // world.size
