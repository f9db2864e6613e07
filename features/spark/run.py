"""The one way to run Spark tasks, so that what fails in one reaches the user as it was raised.

    rows = collect(mapped(numbered(spark, 8), task, "report binary"), "encode")

``mapped`` carries a task's errors across Spark, ``collect`` raises them again; nothing else calls Spark's own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from tqdm import tqdm

from fieldwise.features.interrupt import Interrupted
from fieldwise.features.process import end_children
from fieldwise.features.spark.errors import Task, carried, unwrapped
from fieldwise.features.terminal import BarStream, bars, warn

_PATIENCE_SECONDS = 5.0
"""After which somebody hears that a job's tasks have no cores."""


def numbered(spark: SparkSession, count: int) -> DataFrame:
    """A partition for each of ``count`` numbers."""
    return spark.range(0, count, 1, count)


def mapped(frame: DataFrame, task: Task, schema: str) -> DataFrame:
    """What ``task`` makes of the frame's Arrow batches."""
    return frame.mapInArrow(carried(task), schema)


def collect(frame: DataFrame, what: str) -> list[Row]:
    """All rows of a frame, with a bar on stderr (when it is a terminal) of finished tasks.

    Raises FieldwiseError: that of a task, or ClusterError for what Spark itself could not do.
    """
    with _progress(frame.sparkSession, what), _ended_with_us(frame.sparkSession), unwrapped():
        rows: list[Row] = frame.collect()
        return rows


def collect_reports(frame: DataFrame, task: Task, what: str) -> list[Any]:
    """All that ``task`` tells of a frame, as JSON in a column ``report``; errors as of ``collect``."""
    return [json.loads(row["report"]) for row in collect(mapped(frame, task, "report binary"), what)]


@contextmanager
def _ended_with_us(spark: SparkSession) -> Iterator[None]:
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
    stop = threading.Event()

    def watch(bar: tqdm) -> None:
        tracker, began, idle = context.statusTracker(), time.monotonic(), True
        while not stop.wait(0.3):
            jobs = [info for job in tracker.getJobIdsForGroup(what) if (info := tracker.getJobInfo(job))]
            stages = [info for job in jobs for stage in job.stageIds if (info := tracker.getStageInfo(stage))]
            bar.total, bar.n = sum(s.numTasks for s in stages), sum(s.numCompletedTasks for s in stages)
            bar.refresh()
            idle = idle and not bar.n and not any(stage.numActiveTasks for stage in stages)
            if idle and time.monotonic() - began > _PATIENCE_SECONDS:
                idle = False  # told once
                warn(_waiting(spark, what))

    stderr = BarStream(sys.stderr)
    with tqdm(desc=what, unit="task", disable=not bars(), leave=False, file=stderr, dynamic_ncols=True) as bar:
        thread = threading.Thread(target=watch, args=(bar,), daemon=True)
        if not (bar.disable and context.master.startswith("local")):
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()
