"""Who reads which rows in which step: a pure function of (rows per file, seed, epoch, batch size, streams).

The files are permuted, then the rows inside each file; laid end to end they are the epoch's order. It is cut into V
streams, equal to within one row, and a step takes ``batch_size / V`` rows of every stream. Each of N ranks reads
neighbouring streams, so neither the global batch nor the number of steps depends on N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldwise.features.errors import ConfigError

_FILES, _ROWS = 0, 1  # what a seed sequence is for


class Segment(NamedTuple):
    """Rows ``first .. first + rows`` in the permuted order of a file, read by one stream."""

    stream: int
    file: int
    first: int
    rows: int


class Plan:
    """One epoch over files of the given row counts.

    Args:
        rows: rows of each file, in the manifest's order.
        batch_size: rows of a step over all streams; a multiple of ``streams`` (ConfigError otherwise).
        shuffle: False keeps files and rows in order, as evaluation wants.
    """

    def __init__(
        self,
        rows: Sequence[int],
        *,
        batch_size: int,
        streams: int = 8,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1 or batch_size % streams:
            raise ConfigError(
                "training.batch_size",
                expected=f"a multiple of {streams} streams",
                found=str(batch_size),
                fix=f"The nearest is {max(1, round(batch_size / streams)) * streams}.",
            )
        self.rows = np.asarray(rows, np.int64).reshape(-1)
        self.streams, self.per_stream = streams, batch_size // streams
        self._seed, self._epoch, self._shuffle = seed, epoch, shuffle
        files = len(self.rows)
        self._order = self._generator(_FILES).permutation(files) if shuffle else np.arange(files)
        self._starts = np.concatenate([[0], np.cumsum(self.rows[self._order])])
        self.total = int(self._starts[-1])
        self._bounds = [stream * self.total // streams for stream in range(streams + 1)]
        self.steps = -(-self._longest() // self.per_stream)

    def _longest(self) -> int:
        return max(b - a for a, b in zip(self._bounds, self._bounds[1:], strict=False))

    def _generator(self, purpose: int, file: int = 0) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed & (2**64 - 1), self._epoch, purpose, file]))

    def permutation(self, file: int) -> npt.NDArray[np.int64]:
        """Row numbers of a file in the order they are trained."""
        count = int(self.rows[file])
        return self._generator(_ROWS, file).permutation(count) if self._shuffle else np.arange(count)

    def streams_of(self, rank: int, world: int) -> list[int]:
        """Streams that a rank reads: neighbours, which share files; ConfigError when a rank would have none."""
        if world > self.streams:
            raise ConfigError(
                "training.streams",
                expected=f"at least one stream for each of {world} ranks",
                found=f"{self.streams} streams",
                fix="Start fewer ranks, or raise streams.",
            )
        return list(range(self.streams * rank // world, self.streams * (rank + 1) // world))

    def step(self, step: int, streams: Sequence[int]) -> list[Segment]:
        """What the given streams contribute to a step, stream by stream; nothing where a stream has run out."""
        segments: list[Segment] = []
        for stream in streams:
            end = self._bounds[stream + 1]
            start = min(self._bounds[stream] + step * self.per_stream, end)
            segments += self._cut(stream, start, min(start + self.per_stream, end))
        return segments

    def reads(self, streams: Sequence[int], start_step: int = 0) -> list[Segment]:
        """All that the given streams take from ``start_step`` on, in the order in which each is first needed."""
        found: list[tuple[int, Segment]] = []
        for stream in streams:
            base, end = self._bounds[stream], self._bounds[stream + 1]
            position = min(base + start_step * self.per_stream, end)
            for segment in self._cut(stream, position, end):
                found.append(((position - base) // self.per_stream, segment))
                position += segment.rows
        found.sort(key=lambda item: (item[0], item[1].stream))  # stable: a stream keeps its own order
        return [segment for _, segment in found]

    def _cut(self, stream: int, start: int, stop: int) -> Iterator[Segment]:
        """Positions [start, stop) of the epoch's order as segments of files."""
        at = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first = int(self._starts[at])
            count = min(stop, int(self._starts[at + 1])) - start
            if count > 0:  # an empty file has no positions
                yield Segment(stream, int(self._order[at]), start - first, count)
                start += count
            at += 1
