"""How files are opened: format, separator, quote, header, encoding and names, found in the first bytes of one of them.

Every guess is tried with the parser that features use: what is written into a config is what was read here.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features import store
from fieldwise.features.columns.text import numbers
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.files.compression import compression, opened, opened_raw, require_text
from fieldwise.features.files.listing import SourceFile, list_files
from fieldwise.features.schema import expand_names
from fieldwise.features.source.headers import first_values
from fieldwise.features.source.misread import formats
from fieldwise.features.source.raw import column_names, read_range
from fieldwise.features.source.rows import FileRange

HEAD = 4 << 20
"""Bytes of a file that tell how it is written."""
TRIED = 200_000
"""Bytes of it that every guess at a separator is tried on."""
SEPARATORS = (",", "\t", ";", "|", "\x01")
LAST_RESORT = (":", " ")
"""Separators of files that have none of the others."""
ALIKE = 0.9
"""Share of rows with as many values as the first, without which a separator is none."""
_PARQUET = b"PAR1"
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Opening:
    """A source and how it reads."""

    config: SourceConfig
    """With absolute paths."""
    files: tuple[SourceFile, ...]
    names: tuple[str, ...]
    """Columns that can be named in a config, in the order of the file."""
    named: bool
    """Whether the file names them itself."""
    lists: tuple[str, ...] = ()
    """Columns of jsonl that hold lists."""
    notes: tuple[str, ...] = field(default=())
    """What the guess rests on, for people."""

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def open_as(path: str, prefix: str = "c") -> Opening:
    """Look at the first file that is not empty.

    Args:
        path: absolute, or a URL; a file, pattern or directory.
        prefix: of the names of columns that have none: ``c1``, ``c2``.

    Raises: ConfigError for a path that a config cannot hold, InputError for no file and for what is not read.
    """
    require_writable(path)
    files = list_files(SourceConfig(path=[path], format="parquet"), "/")  # as parquet: of that no suffix is refused
    file = next((file for file in files if file.size), files[0])
    with opened_raw(file.path) as raw:
        parquet = raw.read(len(_PARQUET)) == _PARQUET
    if parquet:
        config = SourceConfig(path=[path], format="parquet")
        every = column_names(config, file.path) or []
        return _opening(config, files, every, "its footer says so")
    list_files(SourceConfig(path=[path]), "/")  # refuses suffixes of what is not read as text
    with opened(file.path) as stream:
        require_text(file.path, stream.peek(), "utf-8")
        head = stream.read(HEAD)
    if not head.strip():
        raise InputError(file.path, expected="rows", found="an empty file", fix="Name a file that holds some.")
    encoding = _encoding(head)
    rows = _objects(head, file.path)
    if rows:
        config = SourceConfig(path=[path], format="jsonl", encoding=encoding)
        return _json(config, files, rows)
    return _delimited(path, files, file, head, encoding, prefix)


def require_writable(path: str) -> None:
    """ConfigError for a path that a config would read as another one."""
    sign = next((sign for sign in ("${", "\0") if sign in path), "")
    if expand_names([path]) != [path]:
        sign = "{..}"
    if sign:
        fix = "Rename it, or a directory above it."
        raise ConfigError(path, expected="a path that a config can name", found=f"{sign!r} in it", fix=fix)


def can_be_named(name: str) -> bool:
    """Whether a config can name a column: braces, variables and NUL mean something else there."""
    if not name or len(name) > _LONGEST_NAME or "${" in name or "\0" in name:
        return False
    with suppress(ValueError):
        return expand_names([name]) == [name] and name.encode().decode() == name
    return False


def _opening(config: SourceConfig, files: Sequence[SourceFile], every: Sequence[str], *notes: str,
             lists: Sequence[str] = ()) -> Opening:  # fmt: skip
    """Of a source whose columns cannot be renamed: those without a usable name are left out."""
    names = tuple(name for name in every if can_be_named(name) and every.count(name) == 1)
    left = len(every) - len(names)
    notes = (*notes, f"{left} columns have names that a config cannot hold: left out") if left else notes
    return Opening(config, tuple(files), names, True, tuple(lists), notes)


def _encoding(head: bytes) -> str:
    """The bytes are UTF-8, or those of western Europe."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end
        return "utf-8"
    except UnicodeDecodeError:
        return "cp1252" if any(0x80 <= byte < 0xA0 for byte in head) and _decodes(head, "cp1252") else "latin-1"


def _decodes(head: bytes, encoding: str) -> bool:
    with suppress(UnicodeDecodeError):
        return bool(head.decode(encoding))
    return False


def _objects(head: bytes, path: str) -> list[dict[str, Any]]:
    """The objects among the first lines, if the first is one. InputError for JSON that is not one object a line."""
    lines = head.split(b"\n")[:2000]
    found: list[dict[str, Any]] = []
    for line in filter(bytes.strip, lines):
        with suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                found.append(value)
        if not found:
            break
    if not found and head.lstrip()[:1] in (b"[", b"{") and re.search(rb"\.json(\.\w+)?$", path.lower().encode()):
        fix = "Write one object a line: `jq -c '.[]' FILE > FILE.jsonl`."
        raise InputError(path, expected="one JSON object a line", found="JSON of another form", fix=fix)
    return found


def _json(config: SourceConfig, files: Sequence[SourceFile], rows: Sequence[dict[str, Any]]) -> Opening:
    """Columns are the keys of the first objects."""
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.items():
            flat = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
            kind = "list" if flat else "nested" if isinstance(value, dict | list) else "value"
            kinds.setdefault(key, set()).add(kind if value is not None else "null")
    nested = [key for key, found in kinds.items() if "nested" in found]
    keys = [key for key in kinds if key not in nested]
    notes = [f"keys of the first {len(rows):,} objects"]
    notes += [f"{len(nested)} keys hold objects, which are no columns: left out"] if nested else []
    return _opening(config, files, keys, *notes, lists=[key for key in keys if "list" in kinds[key]])


class _Guess(NamedTuple):
    """A way to cut lines, and how it fits."""

    separator: str
    format: Literal["csv", "tsv"]
    quote: str | None
    columns: int
    fit: float
    """Share of the tried rows that have as many values as the first."""

    def config(self, path: str, encoding: str, **more: Any) -> SourceConfig:
        usual = "\t" if self.format == "tsv" else ","
        given: dict[str, Any] = {"separator": self.separator} if self.separator != usual else {}
        given |= {"quote": self.quote} if self.quote is not None else {}
        given |= {"format": self.format} if self.format != "csv" else {}
        given |= {"encoding": encoding} if encoding != "utf-8" else {}
        return SourceConfig(path=[path], **given, **more)


def _delimited(
    path: str, files: Sequence[SourceFile], file: SourceFile, head: bytes, encoding: str, prefix: str
) -> Opening:
    if head[:4] == b"sep=":
        fix = "Remove it: `tail -n +2 FILE > FILE.csv`."
        raise InputError(file.path, expected="names or a row", found="a spreadsheet's line `sep=` before them", fix=fix)
    guess = _best(file.path, head, encoding)
    if guess is None:
        ragged = next((sign for sign in SEPARATORS if sign.encode() in head.split(b"\n", 1)[0]), None)
        if ragged is not None:
            counts = [line.count(ragged.encode()) + 1 for line in head.splitlines()[:1000]]
            others = max(set(counts[1:]) or {0}, key=counts[1:].count)
            found = f"{counts[0]} values in the first line, {others} in most others"
            fix = "Put values that hold the separator in quotes, and remove what stands above the header line."
            expected = f"as many values in every line between {_SHOWN.get(ragged, ragged)!r}"
            raise InputError(file.path, expected=expected, found=found, fix=fix)
        raise InputError(
            file.path, expected="columns between commas, tabs, semicolons or bars",
            found=f"a first line {head.splitlines()[0][:80].decode(encoding, 'replace')!r} without any",
            fix="Write it as CSV, JSON lines or Parquet.",
        )  # fmt: skip
    first, rest = _first_rows(guess, file, encoding)
    says = f"separator {_SHOWN.get(guess.separator, guess.separator)!r}: {guess.fit:.1%} of the first rows have "
    says += f"{guess.columns} values like the first"
    if not _is_header(first, rest):
        names = [f"{prefix}{n + 1}" for n in range(guess.columns)]
        config = guess.config(path, encoding, columns=names, header=False)
        return Opening(config, tuple(files), tuple(names), False, (), (says, "the first line is a row, not names"))
    if all(can_be_named(name) and first.count(name) == 1 for name in first):
        return Opening(guess.config(path, encoding), tuple(files), tuple(first), True, (), (says,))
    names = _renamed(first, prefix)
    config = guess.config(path, encoding, columns=names, header=True)
    note = "some names of the header are empty, twice or not to be written here: they are replaced"
    return Opening(config, tuple(files), tuple(names), True, (), (says, note))


_SHOWN = {"\t": "tab", "\x01": "Ctrl-A"}


def _best(path: str, head: bytes, encoding: str) -> _Guess | None:
    """The separator that makes most columns of most rows."""
    line = head.split(b"\n", 1)[0]
    for separators in (SEPARATORS, LAST_RESORT):
        found: list[_Guess] = []
        for separator, quote in product(separators, ('"', None, "'")):
            mark = separator.encode()
            apart = quote == "'" and b"'" + mark not in head and mark + b"'" not in head
            plain = quote is None and separator == "\t" and b'"' in head
            if mark in line and not apart:
                guess = _tried(path, head, encoding, separator, quote)
                if guess is not None and guess.fit >= ALIKE:
                    found.append(guess._replace(fit=guess.fit - 1e-9 * plain))
        if found:
            # of equal ones the first: quotes are looked for, but of tabs only where there are any
            return max(found, key=lambda guess: (round(guess.columns * guess.fit, 6), _usual(guess, head)))
    return None


def _usual(guess: _Guess, head: bytes) -> int:
    quotes = guess.quote is None and guess.format == "csv"
    if guess.separator == "\t" and b'"' not in head:
        return int(guess.format == "tsv")
    return 2 * int(quotes) + int(guess.format == "tsv")


def _tried(path: str, head: bytes, encoding: str, separator: str, quote: str | None) -> _Guess | None:
    """``quote`` None: quotes mean nothing (tsv)."""
    guess = _Guess(separator, "tsv" if quote is None else "csv", quote if quote == "'" else None, 0, 0.0)
    try:
        first = first_values(guess.config(path, encoding, columns=["\x7f"], header=False), path) or []
        guess = guess._replace(columns=len(first))
        if len(first) < 2:
            return None
        good, bad = _counted(guess, path, encoding)
    except (InputError, ValueError):
        return None
    return guess._replace(fit=good / max(1, good + bad))


def _placeholders(guess: _Guess, path: str, encoding: str) -> SourceConfig:
    """Every line a row, under names that no file has."""
    return guess.config(path, encoding, columns=[f"\x7f{n}" for n in range(guess.columns)], header=False)


def _counted(guess: _Guess, path: str, encoding: str) -> tuple[int, int]:
    """Rows and rejects at the start of a file."""
    config, good, bad = _placeholders(guess, path, encoding), 0, 0
    for batch in read_range(config, FileRange(path, 0, _stop(path))):
        good, bad = good + len(batch.positions), bad + len(batch.rejects)
        break
    return good, bad


def _stop(path: str) -> int:
    """Where trying ends; whole blocks of what is compressed."""
    return TRIED if compression(path) is None else 1 << 62


def _first_rows(guess: _Guess, file: SourceFile, encoding: str) -> tuple[list[str], pa.Table]:
    """The first row, and some after it."""
    config = _placeholders(guess, file.path, encoding)
    first = first_values(config, file.path) or []
    for batch in read_range(config, FileRange(file.path, 0, _stop(file.path))):
        return first, pa.Table.from_batches([batch.columns.batch()]).slice(1, 2000)
    return first, pa.table({name: pa.array([], pa.string()) for name in config.columns or []})


def _is_header(first: Sequence[str], rest: pa.Table) -> bool:
    """Whether the first line is unlike the rows below: names are no numbers over numbers, no moments, and do not come
    again as values."""
    given = [value.strip() for value in first]
    if sum(not value for value in given) > 1:
        return False
    like_rows = sum(map(_is_like, given, rest.columns))
    return 4 * like_rows <= len(first)


def _is_like(value: str, column: pa.ChunkedArray) -> bool:
    """Whether a value of the first line may stand in the column below it."""
    if not value:
        return False
    texts = pa.array([value])
    below = column.combine_chunks().filter(pc.greater(pc.binary_length(column.combine_chunks()), 0))
    if not numbers(texts)[1].any():
        return not len(below) or bool(numbers(below)[1].mean() < 0.5)
    return bool(formats(texts)) or bool(pc.any(pc.equal(below, value)).as_py())


def _renamed(first: Sequence[str], prefix: str) -> list[str]:
    """Names by position, each once."""
    names: list[str] = []
    for n, name in enumerate(first):
        usable = can_be_named(name) and name not in names
        names.append(name if usable else _free(f"{prefix}{n + 1}", [*first, *names]))
    return names


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


def shown_path(path: str, directory: str) -> str:
    """A path as a config in ``directory`` names it: relative where it lies near."""
    if "://" in path or not store.is_local(path):
        return path
    near = os.path.relpath(path, directory)
    return path if near.startswith(os.path.join("..", "..")) else near
