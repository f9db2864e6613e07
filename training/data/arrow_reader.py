"""Row groups through pyarrow alone: what petastorm is tested against, and who reads where petastorm cannot be."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.training.data.files import Columns, DataFile
from fieldwise.training.data.prefetch import Prefetch


def row_groups(files: Sequence[DataFile]) -> Generator[Columns, None, None]:
    """Decoded row groups of the files, in order, decoded ahead in a thread."""
    with Prefetch(_decoded(files)) as groups:
        yield from groups


def _decoded(files: Sequence[DataFile]) -> Generator[Columns, None, None]:
    for file in files:
        with store.opened(file.path) as stream:
            parquet = pq.ParquetFile(stream)
            for number in range(parquet.num_row_groups):
                table = parquet.read_row_group(number)
                yield {name: table[name].to_numpy() for name in table.column_names}
