"""Spark tasks are started in one way, and what fails in them arrives as it was raised."""

from __future__ import annotations

import ast
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from fieldwise.features.errors import ClusterError, ConfigError, FieldwiseError, InputError, StorageError
from fieldwise.features.spark import run
from fieldwise.features.spark.errors import unwrapped
from fieldwise.features.spark.run import SparkEngine

ROOT = Path(__file__).resolve().parents[3]
ONE_WAY = {"features/spark/run.py": {"mapInArrow", "collect"}}
"""Who may call what of Spark's own."""
SPARKS_OWN = {
    "mapInArrow", "mapInPandas", "applyInPandas", "applyInArrow", "mapPartitions", "foreachPartition", "foreach",
    "collect", "first", "head", "toPandas", "toLocalIterator", "saveAsTable",
}  # fmt: skip


def calls(path: Path) -> set[str]:
    """Names of Spark's own that a module calls as methods, where it has Spark at all."""
    nodes = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    methods = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in SPARKS_OWN]
    return {node.attr for node in methods if not (isinstance(node.value, ast.Name) and node.value.id == "gc")}


def test_nobody_else_starts_tasks_or_collects() -> None:
    rooms = ("features", "pipelines", "jobs")
    modules = [path for room in rooms for path in (ROOT / room).rglob("*.py") if "pyspark" in path.read_text()]
    assert len(modules) > 5
    found = {str(path.relative_to(ROOT)): calls(path) for path in modules}
    assert {path: names for path, names in found.items() if names} == ONE_WAY


def fails_with(error: Exception) -> object:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.column(0)[0].as_py() == 1:
                raise error
            yield batch

    return run


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (
            InputError("b.csv", expected="a column 'é'", found="\nnone", fix="Mend it."),
            InputError,
            "b.csv: expected a column 'é', found \\nnone. Mend it.",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/part"),
            StorageError,
            "/data/part: expected room to write, found No space left on device. Free some: nothing half-written is "
            "left, and the same command goes on from what was finished.",
        ),
    ],
)
def test_errors_of_tasks_arrive_whole(
    spark: SparkSession, raised: Exception, kind: type[FieldwiseError], said: str
) -> None:
    frame = SparkEngine(spark).numbered(3).mapped(fails_with(raised), "id bigint")
    with pytest.raises(FieldwiseError) as met:
        frame.shuffled("id", 2).rows("test")
    assert type(met.value) is kind
    assert str(met.value) == said


def test_a_defect_stays_one(spark: SparkSession) -> None:
    with pytest.raises(PythonException, match="KeyError: 'ours'"):
        SparkEngine(spark).numbered(2).mapped(fails_with(KeyError("ours")), "id bigint").rows("test")


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (
            Py4JError(
                "An error occurred while calling o77.collectToPython.\n: org.apache.spark.SparkException: Job aborted "
                "due to stage failure.\njava.io.IOException: No space left on device\n\tat java.base/x"
            ),
            StorageError,
            "Spark's local directory: expected room to write, found a full disk.",
        ),
        (
            Py4JError(
                "An error occurred while calling o77.collectToPython.\n: org.apache.spark.SparkException: Job aborted "
                "due to stage failure: Task 0 failed 4 times.\nDriver stacktrace:\n\tat org.apache.x"
            ),
            ClusterError,
            "Spark: expected a job that ends, found org.apache.spark.SparkException: Job aborted due to stage failure: "
            "Task 0 failed 4 times. Run it again;",
        ),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), ClusterError, "Spark: expected a job that"),
    ],
)
def test_what_spark_could_not_do(raised: Exception, kind: type[FieldwiseError], said: str) -> None:
    with pytest.raises(FieldwiseError) as met, unwrapped():
        raise raised
    assert type(met.value) is kind
    assert met.value.exit_code == 1
    assert said in str(met.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("(ModuleNotFoundError: No module named 'fieldwise')", "expected the package fieldwise, found none"),
        ("ModuleNotFoundError: No module named 's3fs.core'\n", "expected the package s3fs, found none"),
        (
            'Cannot run program "./fieldwise/bin/python": error=2',
            "expected a program to start, found none at ./fieldwise/bin/python",
        ),
        ("fieldwise: expected Python 3.11 on w7, found none. Set", "expected Python 3.11 on w7, found none"),
        (
            "Python in worker has different version: 3.9 than that in driver: 3.11, PySpark",
            "expected Python 3.11, found 3.9",
        ),
    ],
)
def test_what_executors_lack_is_one_line(told: str, said: str) -> None:
    with pytest.raises(ConfigError) as met, unwrapped():
        raise Py4JError(
            f"An error occurred while calling o7.x\n: Error from python worker:\n  {told}\n" + "\tat x\n" * 160
        )
    assert str(met.value).startswith(f"executors' Python: {said}.")
    assert "\n" not in str(met.value)


def test_a_worker_that_dies_is_told_in_our_words(spark: SparkSession) -> None:
    """As Arrow's reader dies of some damaged Parquet, or the system ends what takes too much memory."""

    def dies(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(ClusterError, match="a task of Spark: expected its end, found a Python worker that was killed"):
        SparkEngine(spark).numbered(1).mapped(dies, "id long").rows("test")


def test_a_master_on_this_machine_is_waited_for_in_silence(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no executors that could come, however long a busy machine takes to begin."""
    monkeypatch.setattr(run, "_PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(run, "bars", lambda: True)

    def slow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        time.sleep(1)
        yield from batches

    assert len(SparkEngine(spark).numbered(2).mapped(slow, "id long").rows("slow")) == 2
    said = capsys.readouterr().err
    assert "slow:" in said, "a bar"
    assert "waits for cores" not in said
