"""Errors a user can meet, raised in a task: they cross Spark whole, and the driver raises them as they were."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyspark.errors import PySparkException

from features import errors
from features.errors import FieldwiseError, storage_error

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_MARK = re.compile(r"fieldwise-error:([A-Za-z0-9+/=]+):")


def carried(task: Task) -> Task:
    """``task``, its FieldwiseErrors written so that ``unwrapped`` finds them in whatever Spark makes of them."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from task(batches)
        except (FieldwiseError, OSError) as raised:
            error = raised if isinstance(raised, FieldwiseError) else storage_error(raised)
            if error is None:
                raise
            parts = [type(error).__name__, error.where, error.expected, error.found, error.fix]
            told = base64.b64encode(json.dumps(parts).encode()).decode()
            raise RuntimeError(f"fieldwise-error:{told}: {error}") from raised

    return run


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the FieldwiseError of a task in place of Spark's exception; other exceptions pass."""
    try:
        yield
    except PySparkException as error:
        found = _MARK.search(str(error))
        if found is None:
            raise
        name, where, expected, what, fix = json.loads(base64.b64decode(found.group(1)))
        raise getattr(errors, name)(where, expected=expected, found=what, fix=fix) from None
