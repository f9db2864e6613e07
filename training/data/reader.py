"""Streams a plan's rows from Parquet into batches.

One reader per rank gets an explicit, ordered list of files, so order, shares and resume are the plan's alone.
Decoding runs ahead in a thread of `petastorm_reader` or `arrow_reader`, and what it decoded is put into order in a
thread of `training.data.batches`. Files that `Seen` has room for are decoded once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from fieldwise.features.arrays import Float32, Int64
from fieldwise.features.errors import FieldwiseError
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.cache import Seen
from fieldwise.training.data.files import Columns, DataFile, beside_names, damaged, require_sound, unreadable
from fieldwise.training.data.plan import Plan, Segment
from fieldwise.training.kernels.table import pick_rows

_AHEAD = 1 << 27  # bytes of rows in order, see files_ahead
_LARGE = 1 << 24
"""Bytes of a file in order whose parts, needed at different times, do not keep each other in memory."""


class PlanReader:
    """``for batch in reader`` yields one batch per step, rows of the given streams in the plan's order.

    A step in which the streams have run out yields a batch of no rows. One pass; closing the
    iterator stops every thread. Raises IntegrityError naming the file when a file is missing, damaged, or does not hold
    the promised rows.

    Args:
        files: the plan's files, in the manifest's order.
        streams: the plan's streams to read, see ``Plan.streams_of``.
        slot_names: the slot columns in order.
        start_step: first step to yield.
        beside: names, in the files, of columns to read that travel beside the rows.
    """

    def __init__(
        self,
        files: Sequence[DataFile],
        plan: Plan,
        streams: Sequence[int],
        slot_names: Sequence[str],
        *,
        start_step: int = 0,
        beside: Sequence[str] = (),
    ) -> None:
        self.rows, self.ahead = 0, files_ahead(files, len(slot_names))
        self.digest = xxhash.xxh3_64()  # of all rows handed out, in their order
        self._files, self._plan, self._streams = files, plan, streams
        self.slot_names, self._start_step, self._beside = slot_names, start_step, list(beside)
        self._wanted: dict[int, list[Segment]] = {}  # by file, in the order of first need
        for segment in plan.reads(streams, start_step):
            self._wanted.setdefault(segment.file, []).append(segment)

    def __iter__(self) -> Generator[Batch, None, None]:
        return self.read(Seen())

    def read(self, seen: Seen) -> Generator[Batch, None, None]:
        """The batches of this reader alone."""
        with closing(decoded([self], seen)) as columns:
            yield from self.batches(self.arrivals(columns))

    @property
    def columns(self) -> list[str]:
        """That every file must have."""
        return [*self.slot_names, "label", *self._beside]

    @property
    def needs(self) -> list[DataFile]:
        """The files in the order of first need."""
        return [self._files[file] for file in self._wanted]

    def batches(self, arriving: Iterator[Blocks]) -> Generator[Batch, None, None]:
        """The batches, of what `arrivals` gives, all of which they take up."""
        held: Blocks = {}
        for step in range(self._start_step, self._plan.steps):
            segments = self._plan.step(step, self._streams)
            parts = []
            for segment in segments:
                key = (segment.stream, segment.file)
                while key not in held:
                    held |= next(arriving)
                parts.append(held[key].take(segment))
                if held[key].spent:
                    del held[key]
            batch = self._assemble(parts, segments)
            self.rows += batch.rows
            self.digest.update(batch.slots.T.data)
            self.digest.update(batch.label.data)
            yield batch

    def _assemble(self, parts: list[_Block], segments: list[Segment]) -> Batch:
        if not parts:
            nothing = np.empty((0, len(self._beside)), np.int64)
            parts = [_Block(0, np.empty((len(self.slot_names), 0), np.int32), np.empty(0, np.float32), None, nothing)]
        weights = [part.weight for part in parts if part.weight is not None]  # of all files or of none
        slots = np.concatenate([part.slots for part in parts], axis=1)
        return Batch(
            slots.T,
            np.concatenate([part.label for part in parts]),
            np.concatenate(weights) if weights else None,
            segments,
            np.concatenate([part.beside for part in parts]) if self._beside else None,
        )

    def arrivals(self, columns: Iterator[Columns]) -> Generator[Blocks, None, None]:
        """File after file, of what `decoded` gives, as the blocks that our streams take from it."""
        for file in self._wanted:
            yield self._blocks(file, next(columns))

    def _blocks(self, file: int, columns: Columns) -> Blocks:
        permutation = self._plan.permutation(file)
        slots = [columns[name] for name in self.slot_names]
        weight, beside = columns.get("weight"), [columns[name] for name in self._beside]
        if any(column.dtype != np.int64 for column in beside):
            raise damaged(self._files[file], "other types or nulls", expected="int64 beside the rows")
        wanted = self._wanted[file]
        rows = np.concatenate([permutation[segment.first : segment.first + segment.rows] for segment in wanted])
        rows += self._files[file].first
        taken = np.empty((len(slots), len(rows)), np.int32)
        for slot, values in enumerate(slots):
            pick_rows(values, rows, taken[slot])
        label, weights = columns["label"][rows], None if weight is None else weight[rows]
        more = np.stack([column[rows] for column in beside], 1) if beside else np.empty((len(rows), 0), np.int64)
        blocks, begin, large = Blocks(), 0, taken.nbytes > _LARGE
        for segment in wanted:
            part = slice(begin, begin + segment.rows)
            own, begin = taken[:, part], begin + segment.rows
            blocks[(segment.stream, file)] = _Block(
                segment.first, own.copy() if large else own, label[part],
                None if weights is None else weights[part], more[part],
            )  # fmt: skip
        return blocks


@dataclass
class _Block:
    """Rows ``first ...`` of a file's permuted order."""

    first: int
    slots: npt.NDArray[np.int32]  # [S, rows]: gathering along a slot is what caches like
    label: Float32
    weight: Float32 | None
    beside: Int64  # [rows, columns]
    taken: int = 0

    def take(self, segment: Segment) -> _Block:
        part = slice(segment.first - self.first, segment.first - self.first + segment.rows)
        self.taken += segment.rows
        weight = None if self.weight is None else self.weight[part]
        return _Block(segment.first, self.slots[:, part], self.label[part], weight, self.beside[part])

    @property
    def spent(self) -> bool:
        return self.taken == len(self.label)


Blocks = dict[tuple[int, int], _Block]
"""By (stream, file)."""


def decoded(readers: Sequence[PlanReader], seen: Seen) -> Generator[Columns, None, None]:
    """The columns of each file that the readers need, one after another; they are opened together, which takes long."""
    files = [file for reader in readers for file in reader.needs]
    kept, slot_names = [seen.columns(file) for file in files], readers[0].slot_names
    unread = [file for file, columns in zip(files, kept, strict=True) if columns is None]
    with closing(seen.row_groups(list(unread))) as groups:
        for file, columns in zip(files, kept, strict=True):
            if columns is None:
                try:
                    whole = _whole(file, readers[0].columns, groups)
                    require_sound(file, whole, slot_names)
                    seen.check(file, whole, slot_names)
                    columns = {name: whole[name] for name in (*readers[0].columns, "weight") if name in whole}
                    seen.keep(file, columns)
                except FieldwiseError:
                    raise
                except Exception as error:  # of whatever layer below: pyarrow, fsspec, petastorm
                    for other in unread:  # opening reads the footers of all files, so any of them may be the one
                        seen.verify(other)
                    raise unreadable(file, error) from error
                unread.remove(file)
            yield columns


def _whole(file: DataFile, names: Sequence[str], groups: Iterator[Columns]) -> Columns:
    """The columns of a file, which is one row group, but several are read as well; if it has them, the weight, too, and
    all that travels beside the rows, of which its digest is."""
    parts: list[Columns] = []
    rows = 0
    while rows < file.whole:
        group = next(groups, None)
        if group is None:
            raise damaged(file, f"{rows} rows")
        missing = [name for name in names if name not in group]
        if missing:
            raise damaged(file, f"no column {missing[0]}", expected=f"columns {names[0]} ... and label")
        rows += len(group["label"])
        wanted = dict.fromkeys((*names, "weight", *beside_names(group)))
        parts.append({name: group[name] for name in wanted if name in group})  # nobody keeps the others
    if rows > file.whole:
        raise damaged(file, f"{rows} rows")
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def files_ahead(files: Sequence[DataFile], slots: int) -> int:
    """How many files to put into order before their rows are needed: 1 to 8, half an epoch's, ``_AHEAD`` bytes at most.

    An epoch begins with a file of every stream; without those the steps would wait.
    """
    largest = max((file.rows for file in files), default=0) * (slots + 1) * 4
    return max(1, min(_AHEAD // max(largest, 1), len(files) // 2, 8))
