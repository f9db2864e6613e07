"""Side tables: read once, held in memory, looked up by key. Unmatched rows get nulls, that is missing values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fieldwise.features.columns.batch import Columns, one_table
from fieldwise.features.columns.text import canonical
from fieldwise.features.columns.vocabulary import TextIndex
from fieldwise.features.config import JoinConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.places import places
from fieldwise.features.source.raw import read_range, source_columns, split_ranges


class SideTable:
    """One joined table. Picklable; the index is rebuilt where it is used.

    Attributes: ``name`` of its files and key; ``names`` of the columns it adds.
    """

    def __init__(self, config: JoinConfig, base: str) -> None:
        """Reads the files; InputError on duplicate or unreadable rows, missing columns."""
        self.on, self.path = config.on, ", ".join(config.path)
        """The path as the config has it."""
        self.name = f"{self.path} on {config.on}"
        self._origin = f"side table {self.name}"
        wanted = None if config.select is None else [config.on, *config.select]
        if config.format == "jsonl" and wanted is None:
            raise InputError("join", expected="`select` for a jsonl side table", found="none", fix="Name its columns.")
        files = list_files(config, base)
        require_keys(config, files, wanted or ())
        names = wanted or source_columns(config, files)[1] or []
        names = names if config.on in names else [config.on, *names]
        batches: list[pa.RecordBatch] = []
        for rng in split_ranges(config, files, 1 << 62):
            for batch in read_range(config, rng, names):
                for reject in batch.rejects[:1]:
                    ((_, where),) = places([(reject.path, reject.position)], lambda _: config.format)
                    raise InputError(
                        where, expected="rows that parse", found=reject.reason,
                        fix="Mend the side table; unlike the log's, its rows are not quarantined.",
                    )  # fmt: skip
                batches.append(batch.columns.batch())
        nothing = pa.table({name: pa.array([], pa.string()) for name in names})
        table = one_table(batches).combine_chunks() if batches else nothing
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
        more, read = {}, set(wanted)
        for name in self.names:
            if name in read:
                column = self._rows.column(name)
                single = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
                more[name] = single.take(places)
        return columns.adding(more, self._origin), int(np.count_nonzero(found >= FIRST))
