"""Row groups through petastorm: the one place that calls it.

It gets an explicit, ordered list of file URLs, and decodes ahead in a thread of its own.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator, Sequence
from itertools import groupby
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from fieldwise.training.data import adapter
from fieldwise.training.data.files import Columns, DataFile

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    adapter.import_petastorm()
    from petastorm import make_batch_reader
    from petastorm.etl import dataset_metadata
    from petastorm.workers_pool import thread_pool


# petastorm calls deprecated functions of pyarrow in its worker threads, once per file
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"petastorm\.")
warnings.filterwarnings("ignore", category=ResourceWarning, module=r"petastorm\.")


def _no_schema(dataset: Any) -> Any:
    raise dataset_metadata.PetastormMetadataError("a schema of petastorm's own is a pickle, and is not read")


# petastorm unpickles a schema that it finds beside the data, and its list of what a pickle may name holds exec: here
# every way to it ends, whatever a snapshot from elsewhere holds
dataset_metadata.get_schema = _no_schema

# its threads write tracebacks of errors that we get, and tell in our words
thread_pool.sys = SimpleNamespace(stderr=io.StringIO())

_QUEUED_FILES = 2  # decoded ahead by petastorm; its default of 50 would hold gigabytes


def row_groups(files: Sequence[DataFile]) -> Generator[Columns, None, None]:
    """Decoded row groups of the files, in order; neighbours in one store are opened together.

    One worker: with more, petastorm does not keep the order.
    """
    for _, neighbours in groupby(files, key=lambda file: (file.quoted, *urlsplit(file.url)[:2])):
        store_files = list(neighbours)
        with make_batch_reader(
            [file.url for file in store_files],
            reader_pool_type="thread",
            workers_count=1,
            results_queue_size=_QUEUED_FILES,
            shuffle_row_groups=False,
            num_epochs=1,
            hdfs_driver="libhdfs",
            filesystem=adapter.filesystem(store_files),
        ) as reader:
            for group in reader:
                yield group._asdict()
