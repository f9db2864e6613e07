"""Row gradients of all ranks, summed: first which rows, then the rows themselves in one agreed order.

Ranks that have one table together mark their rows in memory that all see, and from the others' marks tell which rows
another rank touches too. Those have places in lanes that all see, and one rank updates each: that which has the row
more than once, chosen by the row's number where several do. So per step only six numbers travel.

Replicas agree by an all_gather of row ids, padded to the longest list, and after the backward pass sum the gradients by
an all_reduce of [G, width] over the G rows that any rank touched. Nothing of the table's size ever travels.
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
from training.table import zeros
from training.threads import team
from training.world import World

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_AHEAD = 16
"""Ids between asking for a place in the map and using it."""
_MANY = 1 << 30
"""Rows of a batch that is cut into as many parts as any."""
_LAST = 2**31 - 1
"""Of a mark."""


class Union(NamedTuple):
    """What all ranks together touch in a step."""

    ids: Tensor  # int64 [G], of replicas the same on every rank; of one table those that this rank updates at the end
    mine: Tensor | None  # int32 [U], places in a lane of this rank's rows, -1: touched once in all; None: as in ids
    rows: int  # of the global batch
    weight: float  # sum of the global batch's row weights
    signals: int  # bits that any rank raised
    places: Tensor | None = None  # int32 [G], of ids in a lane; None: in order
    size: int = 0  # places of a lane
    handed: int = 0  # rows whose gradients other ranks add


class Exchange:
    """Exchanges for a table of ``rows`` rows. ``bytes`` counts what this rank handed to the others.

    Args:
        shared: memory of the ranks, if they have one table together; only `FusedStep` can update that.

    ``busy`` [ranks]: seconds each rank took for its own work since ``begin``, waiting for others left out.
    """

    def __init__(self, world: World, rows: int, shared: SharedMemory | None = None) -> None:
        self.world, self.shared, self.bytes = world, shared, 0
        self.begin()
        self._position = np.full(rows if world.size > 1 and shared is None else 0, -1, np.int32)  # cleaned after use
        self._marks = np.zeros(0, np.int32) if shared is None else shared.zeros(world.size, rows).view(np.int32)
        self._base = 1
        """Marks of this step are not below it."""
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
        if self.world.size == 1:
            return Union(compact.ids, None, rows, weight, signals)
        numbers, repeats = self._mark(compact) if self.shared is not None else (None, 0)
        self.lap()
        facts = torch.empty(self.world.size, 6, dtype=torch.float64)
        mine = [[len(compact.ids), repeats, rows, weight, signals, self._own]]
        self._gather(facts, torch.tensor(mine, dtype=torch.float64))
        self.busy += facts[:, 5].numpy()
        self._own, self._since = 0.0, time.perf_counter()
        common = (
            int(facts[:, 2].sum()), float(facts[:, 3].sum()), int(np.bitwise_or.reduce(facts[:, 4].long().numpy()))
        )  # fmt: skip
        if numbers is None:
            return self._listed(compact.ids, facts[:, 0].long(), *common)
        return self._marked(compact, numbers, facts[:, 0].long().numpy(), facts[:, 1].long().numpy(), *common)

    def _mark(self, compact: Compact) -> tuple[Int32, int]:
        """Write this rank's number of every row it touches, the repeated ones first, and their count."""
        marks = self._marks[self.world.rank]
        if self._base > _LAST - len(marks):  # every rank comes to this in the same step
            marks[:] = 0
            self._base = 1
        numbers, repeat = np.empty(len(compact.ids), np.int32), compact.repeat.numpy()
        repeats = int(repeat.max(initial=-1)) + 1
        _number(compact.ids.numpy(), repeat, repeats, self._base, marks, numbers)
        return numbers, repeats

    def _marked(
        self, compact: Compact, numbers: Int32, counts: Int64, repeats: Int64, rows: int, weight: float, signals: int
    ) -> Union:
        places = np.empty(len(numbers), np.int32)
        own_ids, own_places = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int32)
        own, common = _places(
            compact.ids.numpy(), compact.repeat.numpy(), numbers, self._base, self._marks.reshape(-1), repeats,
            np.cumsum(counts) - counts, self.world.rank, places, own_ids, own_places,
        )  # fmt: skip
        self._base += int(counts.max())
        ids, mine, at = (torch.from_numpy(of) for of in (own_ids[:own], places, own_places[:own]))
        return Union(ids, mine, rows, weight, signals, at, int(counts.sum()), common - own)

    def _listed(self, ids: Tensor, counts: Tensor, rows: int, weight: float, signals: int) -> Union:
        padded = np.zeros((1, int(counts.max())), self._id_type)
        padded[0, : len(ids)] = ids.numpy()
        everyones = np.empty((self.world.size, padded.shape[1]), self._id_type)
        self._gather(torch.from_numpy(everyones), torch.from_numpy(padded))
        union, mine = np.empty(int(counts.sum()), np.int64), np.empty(len(ids), np.int32)
        size = _union(everyones, counts.numpy(), self.world.rank, self._position, union, mine)
        return Union(torch.from_numpy(union[:size]), torch.from_numpy(mine), rows, weight, signals, None, size, size)

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

    def sum(
        self, parts: int, union: Union, width: int, numbers: tuple[float, ...]
    ) -> tuple[Float32, tuple[float, ...]]:
        """End the pass over the batch: all lanes whose rows are still to be added, in order, and sums of ``numbers``.

        Args:
            parts: lanes that this rank has filled.
        """
        lanes = self._lanes if self.shared is not None else self._lanes[:parts]
        if self.world.size == 1:
            return lanes, numbers
        self.lap()
        self.bytes += union.handed * width * lanes.itemsize
        total = torch.tensor(numbers, dtype=torch.float64)
        if self.shared is None:
            size = union.size * width
            if parts > 1:
                team(size).spread(size, lambda first, last: add_parts(first, last, lanes), parts)
            lanes = lanes[:1]
            dist.all_reduce(torch.from_numpy(lanes[0, :size]))
        dist.all_reduce(total)  # also tells that every rank's lanes are whole
        self._since = time.perf_counter()
        return lanes, tuple(total.tolist())

    def _gather(self, into: Tensor, mine: Tensor) -> None:
        self.bytes += mine.numel() * mine.element_size()
        dist.all_gather([into[rank : rank + 1] for rank in range(self.world.size)], mine)


@kernel
def _number(ids, repeat, repeats, base, marks, numbers):  # type: ignore[no-untyped-def]
    once = repeats
    for u in range(len(ids)):
        if u + _AHEAD < len(ids):
            prefetch(marks, ids[u + _AHEAD])
        number = repeat[u] if repeat[u] >= 0 else once
        once += repeat[u] < 0
        numbers[u] = number
        marks[ids[u]] = base + number


@kernel
def _places(  # type: ignore[no-untyped-def]
    ids, repeat, numbers, base, marks, repeats, starts, rank, places, own_ids, own_places
):
    """Places of rows that another rank or part adds to, -1 for the others; how many this rank updates, and has in all.

    ``marks`` [ranks * rows]; ``repeats`` and ``starts`` [ranks]: each rank's count of repeated rows and first place.
    """
    ranks, own, common = np.int64(len(starts)), 0, 0
    rows = len(marks) // ranks
    for u in range(len(ids)):
        if u + _AHEAD < len(ids):
            for other in range(ranks):
                if other != rank:
                    prefetch(marks, other * rows + ids[u + _AHEAD])
        row = ids[u]
        by_number = (np.uint64(row) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)  # of 2**32
        chosen = np.int64((by_number * np.uint64(ranks)) >> np.uint64(32))
        owner, place, lonely = np.int64(-1), np.int64(-1), repeat[u] < 0
        dense = False
        for step in range(ranks):
            r = chosen + step if chosen + step < ranks else chosen + step - ranks
            number = np.int64(numbers[u]) if r == rank else np.int64(marks[r * rows + row]) - base
            if number >= 0:
                lonely &= r == rank
                again = number < repeats[r]
                if owner < 0 or (again and not dense):
                    owner, place, dense = r, starts[r] + number, again
        places[u] = -1 if lonely else place
        own_ids[own], own_places[own] = row, place  # overwritten by the next one unless it is this rank's
        common += not lonely
        own += not lonely and owner == rank
    return own, common


@kernel
def _union(everyones, counts, rank, position, union, mine):  # type: ignore[no-untyped-def]
    """Distinct ids in the order of first sight, rank after rank; returns how many."""
    distinct = 0
    for r in range(len(counts)):
        for i in range(counts[r]):
            if i + _AHEAD < counts[r]:
                prefetch(position, np.int64(everyones[r, i + _AHEAD]))
            row = np.int64(everyones[r, i])
            if position[row] < 0:
                position[row] = distinct
                union[distinct] = row
                distinct += 1
            if r == rank:
                mine[i] = position[row]
    for i in range(distinct):
        position[union[i]] = -1
    return distinct
