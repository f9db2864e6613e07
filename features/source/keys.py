"""Which keys the objects of a jsonl source have: no single object tells, for any may lack an optional one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from fieldwise.features.columns.batch import missing_column
from fieldwise.features.config import SourceConfig
from fieldwise.features.files.compression import opened
from fieldwise.features.files.listing import SourceFile, directory_columns
from fieldwise.features.source.records import MAX_LINE

_BLOCK = 4 << 20


def keys_found(files: Sequence[SourceFile], names: Collection[str]) -> set[str]:
    """Those of ``names`` that some object has. Reads on until all are found: a key may be rare."""
    first = set(first_keys(files))  # it has most of them, or all, however many there are
    left = {name: json.dumps(name, ensure_ascii=False).encode() for name in names if name not in first}
    for block in _blocks(files) if left else ():
        left = {name: key for name, key in left.items() if not _has_key(block, name, key)}
        if not left:
            break
    return set(names) - set(left)


def require_keys(config: SourceConfig, files: Sequence[SourceFile], columns: Collection[str]) -> None:
    """Raises InputError for a column of a jsonl source that no object has: it is taken for a mistake. Files of other
    formats say themselves what they lack."""
    if config.format != "jsonl":
        return
    absent = set(columns) - {name for file in files for name in directory_columns(file.path)}
    absent -= keys_found(files, absent)
    for name in columns:
        if name in absent:
            raise missing_column(", ".join(config.path), name, first_keys(files))


def first_keys(files: Sequence[SourceFile]) -> list[str]:
    """The keys of the first object, for words to people."""
    for block in _blocks(files):
        for line in block.splitlines():
            with suppress(ValueError, RecursionError):  # no JSON, or none that is read
                row = json.loads(line)
                if isinstance(row, dict):
                    return list(row)
    return []


def _blocks(files: Sequence[SourceFile]) -> Iterator[bytes]:
    """Whole lines; of those too long to be rows only a part, which is no JSON."""
    for file in files:
        with opened(file.path) as stream:
            while block := stream.read(_BLOCK):
                rest = stream.readline(MAX_LINE)
                yield block + rest
                while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
                    rest = stream.readline(MAX_LINE)


def _has_key(block: bytes, name: str, key: bytes) -> bool:
    """Whether an object among the lines has the key; its text may also be a value, or a key inside another object, and
    writers that keep to ASCII write it with escapes."""
    for told in (key, b"\\") if any(not 31 < ord(char) < 127 or char in '/"\\' for char in name) else (key,):
        at = block.find(told)
        while at >= 0:
            first, stop = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
            stop = stop if stop >= 0 else len(block)
            with suppress(ValueError, RecursionError):  # no JSON: quarantine will say so
                row = json.loads(block[first:stop])
                if isinstance(row, dict) and name in row:
                    return True
            at = block.find(told, stop)
    return False
