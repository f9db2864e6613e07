"""What values of a key column are called: ``i17`` is ``The Empire Strikes Back`` where a table with that key says so.

A table - the catalog's items, a side table - names its rows by a column ``name`` or ``title``, or ``<key>_name``,
``<key>_title``, whatever the letters' case and signs between words, an ``id`` of the key left out: ``Product name`` of
``product_id``; or ``catalog.item_name`` does. Names are for people alone: no model reads them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.columns.text import canonical
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import FieldwiseError
from fieldwise.features.files.listing import SourceFile, list_files
from fieldwise.features.source.keys import first_keys
from fieldwise.features.source.raw import read_range, source_columns, split_ranges
from fieldwise.pipelines.config.schema import Config

_IDS = ("id", "no", "nr", "number", "key", "code")
_LONGEST = 60
_RANGE_BYTES = 8 << 20


def names_of(config: Config, column: str, keys: Collection[str], date: str | None = None) -> dict[str, str]:
    """Names by canonical text of a key; those that no table names are left out, and so are all where a table cannot be
    read: whoever needs it for its work says so."""
    wanted = set(keys)
    found: dict[str, str] = {}
    for source in _tables(config, column):
        if wanted <= found.keys():
            break
        try:
            files = list_files(source, config.base, date)
            columns = _columns(source, files)
            name = config.catalog.item_name if config.catalog is not None and config.catalog.item_id == column else None
            name = name if name in columns and column in columns else name_column(columns, column)
            if name is not None:
                found = dict(_read(source, files, column, name, wanted)) | found
        except (FieldwiseError, OSError):
            continue
    return found


def _tables(config: Config, column: str) -> Iterator[SourceConfig]:
    catalog = config.catalog
    if catalog is not None and catalog.item_id == column:
        yield catalog.items
    yield from (join for join in config.join if join.on == column)
    if catalog is not None and catalog.context_id == column:
        yield catalog.contexts


def _columns(source: SourceConfig, files: Sequence[SourceFile]) -> Sequence[str]:
    named = source_columns(source, files)[1]
    return first_keys(files) if named is None else named


def name_column(columns: Sequence[str], key: str) -> str | None:
    """The one that names the rows; a table without the key names nobody's."""
    of = [word for word in _words(key) if word not in _IDS] or _words(key)
    usual = [("name",), ("title",), *((*words, last) for last in ("name", "title") for words in (_words(key), of))]
    known = {_words(each): each for each in reversed(columns) if each != key}
    return next((known[tuple(words)] for words in usual if tuple(words) in known), None) if key in columns else None


def _words(name: str) -> tuple[str, ...]:
    """``Product name`` and ``product_name`` are the same."""
    return tuple(re.findall(r"\w+", name.lower().replace("_", " ")))


def _read(
    source: SourceConfig, files: Sequence[SourceFile], key: str, name: str, wanted: set[str]
) -> Iterator[tuple[str, str]]:
    among = pa.array(sorted(wanted), pa.string())
    for part in split_ranges(source, files, _RANGE_BYTES):
        for batch in read_range(source, part, [key, name]):
            keys, names = (canonical(batch.columns.array(each)).cast(pa.string()) for each in (key, name))
            met = pc.and_(pc.is_in(keys, among), pc.greater(pc.binary_length(pc.fill_null(names, "")), 0))
            for which, text in zip(keys.filter(met).to_pylist(), names.filter(met).to_pylist(), strict=True):
                yield which, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
