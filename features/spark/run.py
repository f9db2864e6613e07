"""The one way to run Spark tasks, so that what fails in one reaches the user as it was raised.

``carried`` takes a task's errors across Spark, ``unwrapped`` raises them again; nothing else calls Spark's own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pyspark import Broadcast, SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from tqdm import tqdm

from fieldwise.features.engine.base import Task
from fieldwise.features.interrupt import Interrupted
from fieldwise.features.process import end_children
from fieldwise.features.spark.errors import carried, unwrapped
from fieldwise.features.terminal import BarStream, bars, warn

_PATIENCE_SECONDS = 5.0
"""After which somebody hears that a job's tasks have no cores."""

T = TypeVar("T")


class SparkEngine:
    """See `features.engine.base.Engine`."""

    apart = True

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    @property
    def cores(self) -> int:
        return int(self._spark.sparkContext.defaultParallelism)

    @property
    def task_cores(self) -> int:
        return int(self._spark.sparkContext.getConf().get("spark.task.cpus", "1"))

    def numbered(self, count: int) -> SparkFrame:
        return SparkFrame(self._spark.range(0, count, 1, count))

    def places(self, count: int) -> list[int]:
        return shuffle_keys(count)

    def share(self, value: T) -> Broadcast[T]:
        return self._spark.sparkContext.broadcast(value)

    def send(self, directory: str, names: Iterable[str]) -> Callable[[str], Path]:
        if self._spark.sparkContext.master.startswith("local"):
            return partial(_beside, directory)
        for name in names:
            self._spark.sparkContext.addFile(_lasting(Path(directory, name)))
        return _sent


def _beside(directory: str, name: str) -> Path:
    return Path(directory, name)


@cache
def _shipped() -> Path:
    """Executors that come later ask for the files of all jobs of the session, so none goes before this process."""
    folder = tempfile.mkdtemp(prefix="fieldwise-shipped-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _lasting(file: Path) -> str:
    """The same file where it stays, whoever removes the one that is given."""
    place = _shipped() / file.name
    try:
        os.link(file, place)
    except OSError:  # another file system
        shutil.copyfile(file, place)
    return str(place)


def _sent(name: str) -> Path:
    """Spark keeps the files of all jobs together."""
    return Path(SparkFiles.get(name))


class SparkFrame:
    """See `features.engine.base.Frame`."""

    def __init__(self, frame: DataFrame) -> None:
        self.frame = frame

    def mapped(self, task: Task, schema: str) -> SparkFrame:
        return SparkFrame(self.frame.mapInArrow(carried(task), schema))

    def where(self, column: str, values: Sequence[int], columns: Sequence[str]) -> SparkFrame:
        return SparkFrame(self.frame.filter(F.col(column).isin(list(values))).select(*columns))

    def shuffled(self, column: str, parts: int, order: Sequence[str] = ()) -> SparkFrame:
        frame = self.frame.repartition(parts, column)
        return SparkFrame(frame.sortWithinPartitions(*order) if order else frame)

    @contextmanager
    def kept(self) -> Iterator[SparkFrame]:
        frame = self.frame.persist()
        try:
            yield SparkFrame(frame)
        finally:
            frame.unpersist()

    def rows(self, what: str) -> list[Mapping[str, Any]]:
        """Raises FieldwiseError: that of a task, or ClusterError for what Spark itself could not do."""
        spark = self.frame.sparkSession
        with _progress(spark, what), ended_with_us(spark), unwrapped():
            rows: list[Any] = self.frame.collect()
            return rows


def at_once(spark: SparkSession, count: int, function: Callable[..., T], *arguments: Any, gpus: bool) -> T:
    """``function(*arguments)`` in ``count`` tasks, all at once or none, each a rank of torchrun; what rank 0 gives.

    Raises FieldwiseError: ClusterError for what Spark itself could not do.
    """
    from pyspark.ml.torch.distributor import TorchDistributor

    with ended_with_us(spark), unwrapped():
        given: T = TorchDistributor(count, local_mode=False, use_gpu=gpus).run(function, *arguments)
        return given


def shuffle_keys(partitions: int) -> list[int]:
    """Values of an int column that Spark's hash sends to partitions 0, 1, 2, ... of their own."""
    keys: dict[int, int] = {}
    tried = 4 * partitions
    while len(keys) < partitions:
        ids = np.arange(tried, dtype=np.int32)
        keys = dict(zip((_spark_hash(ids) % partitions).tolist(), ids.tolist(), strict=True))
        tried *= 4
    return [keys[partition] for partition in range(partitions)]


def _spark_hash(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Spark's ``hash`` of ints: Murmur3 of their four bytes, seed 42."""

    def rotated(x: npt.NDArray[np.uint32], by: int) -> npt.NDArray[np.uint32]:
        return x << np.uint32(by) | x >> np.uint32(32 - by)

    k = rotated(values.view(np.uint32) * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
    h = rotated(np.uint32(42) ^ k, 13) * np.uint32(5) + np.uint32(0xE6546B64) ^ np.uint32(4)
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return (h ^ h >> np.uint32(16)).view(np.int32)


@contextmanager
def ended_with_us(spark: SparkSession) -> Iterator[None]:
    """No task is at work any more when an interrupted command removes what they wrote."""
    try:
        yield
    except Interrupted:
        if not end_children():  # spark-submit started us: its JVM is not ours to end
            cancel = threading.Thread(target=spark.sparkContext.cancelAllJobs, daemon=True)  # a connection of its own
            cancel.start()
            cancel.join(5)
        raise


def _waiting(spark: SparkSession, what: str) -> str:
    context = spark.sparkContext
    executors = context._jsc.sc().getExecutorMemoryStatus().size() - 1  # the driver is one
    memory = context.getConf().get("spark.executor.memory", "1g")
    return (
        f"{what} waits for cores of {context.master}: {executors} executors have come. Does a worker there have "
        f"{memory} of memory and a free core? Else ask for less (spark.executor.memory, spark.cores.max)."
    )


@contextmanager
def _progress(spark: SparkSession, what: str) -> Iterator[None]:
    context = spark.sparkContext
    context.setJobGroup(what, f"fieldwise {what}")
    stop, local = threading.Event(), context.master.startswith("local")

    def watch(bar: tqdm) -> None:
        tracker, began, idle = context.statusTracker(), time.monotonic(), not local  # whose cores are this machine's
        while not stop.wait(0.3):
            jobs = [info for job in tracker.getJobIdsForGroup(what) if (info := tracker.getJobInfo(job))]
            stages = [info for job in jobs for stage in job.stageIds if (info := tracker.getStageInfo(stage))]
            bar.total, bar.n = sum(s.numTasks for s in stages), sum(s.numCompletedTasks for s in stages)
            bar.refresh()
            idle = idle and not bar.n and not any(stage.numActiveTasks for stage in stages)
            if idle and time.monotonic() - began > _PATIENCE_SECONDS:
                idle = False  # told once
                bar.clear()
                warn(_waiting(spark, what))

    stderr = BarStream(sys.stderr)
    with tqdm(desc=what, unit="task", disable=not bars(), leave=False, file=stderr, dynamic_ncols=True) as bar:
        thread = threading.Thread(target=watch, args=(bar,), daemon=True)
        if not (bar.disable and local):
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()
