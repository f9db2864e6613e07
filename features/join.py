"""Side tables: read once, held in memory, looked up by key. Unmatched rows get nulls, that is missing values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.config import JoinConfig
from features.errors import InputError
from features.kernels import FIRST
from features.places import places
from features.source import FileRange, list_files, read_range
from features.text import Columns, canonical
from features.vocabulary import TextIndex


class SideTable:
    """One joined table. Picklable; the index is rebuilt where it is used.

    Attributes: ``name`` of its files and key; ``names`` of the columns it adds.
    """

    def __init__(self, config: JoinConfig, base: str) -> None:
        """Reads the files; InputError on duplicate or unreadable rows, missing columns."""
        self.on = config.on
        self.name = f"{', '.join(config.path)} on {config.on}"
        self.path = ", ".join(config.path)
        """As the config has it."""
        wanted = None if config.select is None else [config.on, *config.select]
        if config.format == "jsonl" and wanted is None:
            raise InputError("join", expected="`select` for a jsonl side table", found="none", fix="Name its columns.")
        batches: list[pa.RecordBatch] = []
        for file in list_files(config, base):
            for batch in read_range(config, FileRange(file.path, 0, _end(config, file.path, file.size)), wanted):
                for reject in batch.rejects[:1]:
                    ((_, where),) = places([(reject.path, reject.position)], lambda _: config.format)
                    raise InputError(
                        where, expected="rows that parse", found=reject.reason,
                        fix="Mend the side table; unlike the log's, its rows are not quarantined.",
                    )  # fmt: skip
                batches.append(batch.columns.batch())
        table = pa.Table.from_batches(batches).combine_chunks()
        self._keys = canonical(Columns.of(table).array(config.on))
        self._rows = table.drop_columns([config.on])
        self.names: list[str] = self._rows.schema.names
        self._index: TextIndex | None = None
        self._refuse_repeated(self.path)

    def _refuse_repeated(self, where: str) -> None:
        repeated = self._lookup().repeated
        if repeated >= 0:
            raise InputError(
                where,
                expected=f"each {self.on} once",
                found=f"{self._keys[repeated].as_py()!r} again in row {repeated + 1}",
                fix="Remove duplicate keys from the side table.",
            )

    def _lookup(self) -> TextIndex:
        if self._index is None:
            self._index = TextIndex(self._keys)
        return self._index

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def add_to(self, columns: Columns, wanted: Sequence[str]) -> tuple[Columns, int]:
        """The columns with those of ``wanted`` columns that this table has, and how many rows found their key."""
        found = np.empty(columns.rows, np.int32)
        self._lookup().find(columns.texts(self.on), found)
        places = pa.array(found - FIRST, mask=found < FIRST)
        more = {}
        for name in self.names:
            if name in wanted:
                column = self._rows.column(name)
                single = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
                more[name] = single.take(places)
        return columns.adding(more), int(np.count_nonzero(found >= FIRST))


def _end(config: JoinConfig, path: str, size: int) -> int:
    if config.format != "parquet":
        return size
    return int(pq.read_metadata(path).num_row_groups)
