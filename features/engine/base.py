"""What runs tasks: a small interface that passes are written against, over Spark and over this process alike.

    rows = engine.numbered(8).mapped(task, "report binary").rows("encode")

A task is a plain generator over Arrow batches. What it makes must depend neither on the engine nor on which task reads
what, in which order: then any engine gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


class Shared(Protocol[T_co]):
    """A value that every task may read and none may change."""

    @property
    def value(self) -> T_co: ...


class Frame(Protocol):
    """Arrow batches in partitions, made by tasks once somebody asks for them."""

    def mapped(self, task: Task, schema: str) -> Frame:
        """What ``task`` makes of every partition, of columns as Spark writes a schema (``name type, ...``)."""

    def where(self, column: str, values: Sequence[int], columns: Sequence[str]) -> Frame:
        """``columns`` of the rows whose ``column`` is one of ``values``."""

    def shuffled(self, column: str, parts: int, order: Sequence[str] = ()) -> Frame:
        """The rows in ``parts`` partitions: those of one value of an integer column in the same, whoever made them;
        sorted by ``order`` there. See `Engine.places`."""

    def kept(self) -> AbstractContextManager[Frame]:
        """The same, made once for all that is asked of it within the block."""

    def rows(self, what: str) -> list[Mapping[str, Any]]:
        """All rows, with a bar on stderr (when it is a terminal) named ``what``.

        Raises FieldwiseError: that of a task, or what the engine could not do.
        """


class Engine(Protocol):
    """Where tasks run."""

    @property
    def apart(self) -> bool:
        """Whether tasks run in processes that do nothing else."""

    @property
    def cores(self) -> int:
        """Tasks that run at a time."""

    @property
    def task_cores(self) -> int:
        """Cores that a task has for its kernels."""

    def numbered(self, count: int) -> Frame:
        """A partition for each of ``count`` numbers, which is all it holds."""

    def places(self, count: int) -> list[int]:
        """``count`` int32 that `Frame.shuffled` sends to as many partitions, each to one of its own."""

    def share(self, value: T) -> Shared[T]:
        """The value, once for each process that runs tasks."""

    def send(self, directory: str, names: Iterable[str]) -> Callable[[str], Path]:
        """Files of a directory for tasks to open: a function that tells a task where the file of a name lies."""


def indices(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    """A task's numbers, of `Engine.numbered`."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def reports(told: Iterable[bytes]) -> pa.RecordBatch:
    """(report): JSON, for `collect_reports`."""
    return pa.record_batch([pa.array(list(told), pa.binary())], ["report"])


def collect_reports(frame: Frame, task: Task, what: str) -> list[Any]:
    """All that ``task`` tells of a frame, as JSON in a column ``report``; errors as of `Frame.rows`."""
    return [json.loads(row["report"]) for row in frame.mapped(task, "report binary").rows(what)]
