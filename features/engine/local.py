"""Tasks in threads of this process: kernels and Arrow let other threads run, and nothing has to be started or copied.

Memory is that of the running tasks and of what lies between two stages: up to ``HELD_BYTES``, and in a file beyond.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from fieldwise.features.engine.base import Task
from fieldwise.features.errors import known_error
from fieldwise.features.process import cores
from fieldwise.features.terminal import BarStream, bars

T = TypeVar("T")
Part = Callable[[], Iterator[pa.RecordBatch]]
"""A partition, made when it is called."""

HELD_BYTES = 512 << 20
"""Of one stage's batches that stay in memory."""


@dataclass(frozen=True)
class Held(Generic[T]):
    """A value of this process: every thread has it."""

    value: T


class LocalEngine:
    """See `features.engine.base.Engine`."""

    apart = False
    task_cores = 1

    @cached_property
    def cores(self) -> int:
        return cores()

    def numbered(self, count: int) -> LocalFrame:
        return LocalFrame(self.cores, lambda what: [partial(_number, index) for index in range(count)])

    def places(self, count: int) -> list[int]:
        return list(range(count))

    def share(self, value: T) -> Held[T]:
        return Held(value)

    def send(self, directory: str, names: Iterable[str]) -> Callable[[str], Path]:
        return Path(directory).joinpath


def _number(index: int) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch([pa.array([index], pa.int64())], ["id"])


class LocalFrame:
    """See `features.engine.base.Frame`. ``stage`` runs what must be done before, and gives the partitions."""

    def __init__(self, cores: int, stage: Callable[[str], list[Part]]) -> None:
        self._cores, self._stage = cores, stage

    def mapped(self, task: Task, schema: str) -> LocalFrame:
        return LocalFrame(self._cores, lambda what: [partial(_through, task, part) for part in self._stage(what)])

    def where(self, column: str, values: Sequence[int], columns: Sequence[str]) -> LocalFrame:
        def chosen(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield batch.filter(pc.is_in(batch[column], pa.array(values, batch[column].type))).select(list(columns))

        return self.mapped(chosen, "")

    def shuffled(self, column: str, parts: int, order: Sequence[str] = ()) -> LocalFrame:
        def stage(what: str) -> list[Part]:
            between = _Between(parts)

            def scatter(_: int, batch: pa.RecordBatch) -> None:
                part = batch[column].to_numpy() % parts
                for each in np.unique(part):
                    between.add(int(each), batch if len(batch) == 1 else batch.filter(pa.array(part == each)))

            _run(self._stage(what), scatter, self._cores, what)
            return [partial(between.take, part, order) for part in range(parts)]

        return LocalFrame(self._cores, stage)

    @contextmanager
    def kept(self) -> Iterator[LocalFrame]:
        made: list[_Between] = []
        lock = threading.Lock()

        def stage(what: str) -> list[Part]:
            with lock:
                if not made:
                    parts = self._stage(what)
                    between = _Between(len(parts))
                    _run(parts, between.add, self._cores, what)
                    made.append(between)
            return [partial(made[0].read, part) for part in range(made[0].parts)]

        yield LocalFrame(self._cores, stage)
        made.clear()

    def rows(self, what: str) -> list[Mapping[str, Any]]:
        parts = self._stage(what)
        found: list[list[Mapping[str, Any]]] = [[] for _ in parts]
        _run(parts, lambda part, batch: found[part].extend(batch.to_pylist()), self._cores, what)
        return [row for rows in found for row in rows]


def _through(task: Task, part: Part) -> Iterator[pa.RecordBatch]:
    return task(part())


class _Stopped(Exception):
    """Another task failed, or the command was interrupted."""


def _run(parts: Sequence[Part], take: Callable[[int, pa.RecordBatch], None], cores: int, what: str) -> None:
    """Give every batch of every partition to ``take``, with the partition's number, from ``cores`` threads.

    Raises the error of a partition. Nothing is at work any more when this ends, however it ends.
    """
    stop = threading.Event()

    def run(number: int) -> None:
        try:
            with closing(parts[number]()) as batches:  # type: ignore[type-var]
                for batch in batches:
                    if stop.is_set():
                        raise _Stopped
                    take(number, batch)
        except Exception as error:
            known = known_error(error)
            if known is None or known is error:
                raise
            raise known from error

    stderr = BarStream(sys.stderr)
    with tqdm(desc=what, unit="task", total=len(parts), disable=not bars(), leave=False, file=stderr,
              dynamic_ncols=True) as bar:  # fmt: skip
        if min(cores, len(parts)) <= 1:  # a signal is met at once, between two lines of the task
            for number in range(len(parts)):
                run(number)
                bar.update()
            return
        pool = ThreadPoolExecutor(min(cores, len(parts)), "fieldwise-task")
        try:
            futures = [pool.submit(run, number) for number in range(len(parts))]
            for future in futures:
                future.add_done_callback(lambda _: bar.update())
            wait(futures, return_when=FIRST_EXCEPTION)
            _raise_first(futures)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _raise_first(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        if future.done() and not future.cancelled() and (error := future.exception()) is not None:
            raise error


class _Between:
    """Batches by partition between two stages. Past ``HELD_BYTES`` they go to a file without a name, which ends with
    the process whatever ends that."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self._held: list[list[pa.RecordBatch]] = [[] for _ in range(parts)]
        self._written: list[list[tuple[int, int]]] = [[] for _ in range(parts)]
        """(position, bytes) of Arrow streams in the file."""
        self._bytes, self._end = 0, 0
        self._lock = threading.Lock()

    @cached_property
    def _file(self) -> Any:
        return tempfile.TemporaryFile(prefix="fieldwise-")

    def add(self, part: int, batch: pa.RecordBatch) -> None:
        with self._lock:
            self._held[part].append(batch)
            self._bytes += batch.nbytes
            if self._bytes > HELD_BYTES:
                self._write()

    def _write(self) -> None:
        for part, batches in enumerate(self._held):
            if batches:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, batches[0].schema) as writer:
                    for batch in batches:
                        writer.write_batch(batch)
                size = self._file.write(sink.getvalue())
                self._written[part].append((self._end, size))
                self._end += size
        self._file.flush()
        self._held, self._bytes = [[] for _ in self._held], 0

    def read(self, part: int) -> Iterator[pa.RecordBatch]:
        for position, size in self._written[part]:
            yield from pa.ipc.open_stream(os.pread(self._file.fileno(), size, position))
        yield from self._held[part]

    def take(self, part: int, order: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The batches, sorted as one where there is an ``order``; they are held no longer."""
        batches = self.read(part)
        if order:
            whole = list(batches)
            if whole:
                table = pa.Table.from_batches(whole)
                yield from table.take(pc.sort_indices(table, [(name, "ascending") for name in order])).to_batches()
        else:
            yield from batches
        self._held[part] = []
