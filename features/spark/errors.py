"""Errors a user can meet, raised in a task: they cross Spark whole, and the driver raises them as they were."""

from __future__ import annotations

import base64
import json
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException, PythonException

from fieldwise.features import errors, redact
from fieldwise.features.engine.base import Task
from fieldwise.features.errors import ClusterError, ConfigError, FieldwiseError, StorageError, known_error
from fieldwise.features.redact import redacted

_MARK = re.compile(r"fieldwise-error:([A-Za-z0-9+/=]+):")


def carried(task: Task) -> Task:
    """``task``, its FieldwiseErrors written so that ``unwrapped`` finds them in whatever Spark makes of them.

    Spark's event log keeps what a task raises: none of it, causes included, holds what the driver keeps secret.
    """
    secrets = redact.known()

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        redact.adopt(secrets)
        try:
            yield from task(batches)
        except Exception as raised:
            error = known_error(raised)
            if error is None:
                raise RuntimeError(f"in a task:\n{redacted(traceback.format_exc())}") from None
            parts = [type(error).__name__, error.where, error.expected, error.found, error.fix]
            told = base64.b64encode(json.dumps(parts).encode()).decode()
            raise RuntimeError(f"fieldwise-error:{told}: {error}") from None

    return run


def _lacking(text: str) -> FieldwiseError | None:
    """What executors' Python lacks: told in one line, since every attempt of every task tells it in forty."""
    where = "executors' Python"
    fix = "Ship it: fieldwise pack env.tar.gz, then FIELDWISE_ARCHIVE=env.tar.gz; or install fieldwise on every worker."
    if found := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", text):
        return ConfigError(where, expected=f"the package {found[1].split('.')[0]}", found="none", fix=fix)
    if found := re.search(r'Cannot run program "([^"]+)"', text):
        return ConfigError(where, expected="a program to start", found=f"none at {found[1]}", fix=fix)
    if found := re.search(r"fieldwise: (expected Python [\d.]+ on \S+), found none", text):
        fix = "Install it there, or name it: --conf spark.executorEnv.FIELDWISE_PYTHON=..."
        return ConfigError(where, expected=found[1].removeprefix("expected "), found="none", fix=fix)
    if found := re.search(r"different version[: ]\D*([\d.]+) than that in driver[: ]\D*([\d.]+)", text):
        return ConfigError(where, expected=f"Python {found[2].strip('.')}", found=found[1].strip("."), fix=fix)
    return None


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the FieldwiseError of a task in place of Spark's exception, or say what Spark itself could not do.

    What is left are defects: a task's Python exception that nobody foresaw.
    """
    try:
        yield
    except (PySparkException, Py4JError, ConnectionError, EOFError) as error:
        raise _told(error) from None


def _told(error: Exception) -> Exception:
    """What a user needs to know of Spark's exception; itself where that is a defect of ours."""
    text = str(error)
    if found := _MARK.search(text):
        name, where, expected, what, fix = json.loads(base64.b64decode(found.group(1)))
        told: FieldwiseError = getattr(errors, name)(where, expected=expected, found=what, fix=fix)
        return told
    if told_of := _lacking(text):
        return told_of
    if isinstance(error, PythonException) or "org.apache.spark.api.python.PythonException" in text:
        return error
    if "No space left on device" in text or "Disk quota exceeded" in text:
        fix = "Free some, or name a larger disk in SPARK_LOCAL_DIRS; the same command starts anew."
        return StorageError("Spark's local directory", expected="room to write", found="a full disk", fix=fix)
    if "Python worker exited unexpectedly" in text:
        fix = (
            "It ran out of memory (spark.executor.memory), or a Parquet file is damaged in a way that crashes its "
            "reader: read the files one by one to find it."
        )
        return ClusterError("a task of Spark", expected="its end", found="a Python worker that was killed", fix=fix)
    if isinstance(error, PySparkException):
        return error
    lines = [line.strip(" :") for line in text.splitlines()]
    why = next((line for line in lines if line and not line.startswith("An error occurred")), type(error).__name__)
    fix = "Run it again; if that ends alike, give Spark more memory (spark.driver.memory, spark.executor.memory)."
    return ClusterError("Spark", expected="a job that ends", found=redacted(why)[:300].rstrip("."), fix=fix)
