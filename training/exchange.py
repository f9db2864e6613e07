"""Row gradients of all ranks, summed: first which rows, then the rows themselves in one agreed order.

Per step and rank: one all_gather of five numbers, one of row ids padded to the longest list, and, after the backward
pass, one all_reduce of [G, width] over the G rows that any rank touched. Ranks that have one table together leave out
rows that only one of them touches, once; the others' gradients they sum in shared memory, each of them a part of the
rows. Nothing of the table's size ever travels.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from training.jit import kernel, prefetch
from training.lookup import Compact
from training.passes import add_parts
from training.shared import SharedMemory
from training.table import share, zeros
from training.threads import team
from training.world import World

Float32 = npt.NDArray[np.float32]

_AHEAD = 16
"""Ids between asking for a place in the map and using it."""
_MANY = 1 << 30
"""Rows of a batch that is cut into as many parts as any."""


class Union(NamedTuple):
    """What all ranks together touch in a step; of one table, what they touch more than once."""

    ids: Tensor  # int64 [G], the same on every rank
    mine: Tensor | None  # int32 [U], where this rank's ids are in it, -1: nowhere; None: they are all of it, in order
    rows: int  # of the global batch
    weight: float  # sum of the global batch's row weights
    signals: int  # bits that any rank raised


class Sum(NamedTuple):
    """What a step's second half needs: lanes whose rows are still to be added, in order, and which rows to update."""

    lanes: Float32  # [L, n]
    share: tuple[int, int]  # first and last of the union's rows
    numbers: tuple[float, ...]


class Exchange:
    """Exchanges for a table of ``rows`` rows. ``bytes`` counts what this rank handed to the others.

    Args:
        shared: memory of the ranks, if they have one table together; only `FusedStep` can update that.

    ``busy`` [ranks]: seconds each rank took for its own work since ``begin``, waiting for others left out.
    """

    def __init__(self, world: World, rows: int, shared: SharedMemory | None = None) -> None:
        self.world, self.shared, self.bytes = world, shared, 0
        self.begin()
        self._position = np.full(rows if world.size > 1 else 0, -1, np.int32)  # scratch, cleaned after each use
        self._id_type = np.int32 if rows < 2**31 else np.int64
        self._buffer = torch.empty(0)
        parts = [team(_MANY).parts] if shared is None else world.gather(team(_MANY).parts)
        self._first_lane = sum(parts[: world.rank]) if shared else 0
        self._lanes = np.zeros((sum(parts), 0), np.float32)

    def begin(self) -> None:
        """Take the time from here on."""
        self.busy = np.zeros(self.world.size)
        self._own, self._since = 0.0, time.perf_counter()

    def lap(self, grad: Tensor | None = None) -> None:
        """Own work up to here, a wait may follow; also a hook of the rows' gradient, after which DDP waits."""
        now = time.perf_counter()
        self._own, self._since = self._own + now - self._since, now

    def union(self, compact: Compact, rows: int, weight: float, signals: int = 0) -> Union:
        """Agree on the step's rows of the table, and add up this rank's batch rows, weight and signals."""
        ids = compact.ids
        if self.world.size == 1:
            return Union(ids, None, rows, weight, signals)
        self.lap()
        facts = torch.empty(self.world.size, 5, dtype=torch.float64)
        self._gather(facts, torch.tensor([[len(ids), rows, weight, signals, self._own]], dtype=torch.float64))
        self.busy += facts[:, 4].numpy()
        self._own, self._since = 0.0, time.perf_counter()
        counts = facts[:, 0].long()
        padded = np.zeros((1, int(counts.max())), self._id_type)
        padded[0, : len(ids)] = ids.numpy()
        if self.shared is not None:  # rows that occur once go as complements
            own = padded[0, : len(ids)]
            np.invert(own, out=own, where=compact.repeat.numpy() < 0)
        everyones = np.empty((self.world.size, padded.shape[1]), self._id_type)
        self._gather(torch.from_numpy(everyones), torch.from_numpy(padded))
        union = np.empty(int(counts.sum()), np.int64)
        mine = np.empty(len(ids), np.int32)
        distinct = _union(everyones, counts.numpy(), self.world.rank, self._position, union, mine)
        return Union(
            torch.from_numpy(union[:distinct]),
            torch.from_numpy(mine),
            int(facts[:, 1].sum()),
            float(facts[:, 2].sum()),
            int(np.bitwise_or.reduce(facts[:, 3].long().numpy())),
        )

    def sum_rows(self, union: Union, grad: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the ranks' row gradients [U, width] -> [G, width] in the order of ``union.ids``, and of ``extra`` [n].

        The result is valid until the next call: its memory is used again.
        """
        if union.mine is None:
            return grad, extra
        rows, width = len(union.ids), grad.shape[1]
        size = rows * width + len(extra)
        if len(self._buffer) < size:
            self._buffer = torch.empty(size, dtype=grad.dtype, device=grad.device)
        buffer = self._buffer[:size]
        buffer.zero_()
        summed = buffer[: rows * width].view(rows, width)
        summed.index_copy_(0, union.mine.to(grad.device, torch.int64), grad)
        buffer[rows * width :] = extra
        self.bytes += size * buffer.element_size()
        dist.all_reduce(buffer)
        self._since = time.perf_counter()
        return summed, buffer[rows * width :]

    def lanes(self, parts: int, size: int) -> Float32:
        """Zeros [parts, at least size] for the gradient that each part of this rank's batch sums.

        Call it once per step, after ``union``, with the same size on every rank. `summed_rows` leaves zeros again.
        """
        if self._lanes.shape[1] < size:
            make = zeros if self.shared is None else self.shared.zeros
            self._lanes = make(len(self._lanes), size + size // 4)
        return self._lanes[self._first_lane : self._first_lane + parts]

    def sum(self, parts: int, rows: int, width: int, numbers: tuple[float, ...]) -> Sum:
        """End the pass over the batch, in whose ``parts`` lanes are gradients of ``rows`` rows; see `Sum`.

        Args:
            numbers: to be summed over the ranks.
        """
        lanes = self._lanes if self.shared is not None else self._lanes[:parts]
        if self.world.size == 1:
            return Sum(lanes, (0, rows), numbers)
        self.lap()
        self.bytes += rows * width * lanes.itemsize
        total = torch.tensor(numbers, dtype=torch.float64)
        if self.shared is None:
            size = rows * width
            if parts > 1:
                team(size).spread(size, lambda first, last: add_parts(first, last, lanes), parts)
            lanes = lanes[:1]
            dist.all_reduce(torch.from_numpy(lanes[0, :size]))
        dist.all_reduce(total)  # also tells that every rank's lanes are whole
        self._since = time.perf_counter()
        own = (0, rows) if self.shared is None else share(rows, self.world)
        return Sum(lanes, own, tuple(total.tolist()))

    def _gather(self, into: Tensor, mine: Tensor) -> None:
        self.bytes += mine.numel() * mine.element_size()
        dist.all_gather([into[rank : rank + 1] for rank in range(self.world.size)], mine)


@kernel
def _union(everyones, counts, rank, position, union, mine):  # type: ignore[no-untyped-def]
    """Distinct ids in the order in which they are known to belong, rank after rank; returns how many.

    An id ~i is that of a row which belongs only if another rank has it too; where it does not, ``mine`` is -1.
    """
    distinct = 0
    for r in range(len(counts)):
        for i in range(counts[r]):
            if i + _AHEAD < counts[r]:
                ahead = np.int64(everyones[r, i + _AHEAD])
                prefetch(position, max(ahead, ~ahead))
            code = np.int64(everyones[r, i])
            row = max(code, ~code)
            at = position[row]
            if at == -1 and code < 0:
                position[row] = -2
            elif at < 0:
                position[row] = distinct
                union[distinct] = row
                distinct += 1
    for other in range(len(counts)):
        r = (rank + other) % len(counts)  # this rank's first: what was read may be cleaned
        for i in range(counts[r]):
            if i + _AHEAD < counts[r]:
                ahead = np.int64(everyones[r, i + _AHEAD])
                prefetch(position, max(ahead, ~ahead))
            code = np.int64(everyones[r, i])
            row = max(code, ~code)
            if r == rank:
                mine[i] = max(position[row], -1)
            position[row] = -1
    return distinct
