"""The columns that score-rows writes: their names and one type each, decided from all files before the first is scored.

A column has the same type in every part, one that pandas, Arrow and Spark read alike. Where the files differ:

    null and T                      T (null alone: text)
    integers                        the narrowest integer that holds both; uint64 and a signed one: text
    floats, or one and integers     double (float where both fit); 64-bit integers and floats: text
    decimals                        as many digits as both need, up to 38
    moments                         the finer unit, if all have a zone (written as UTC) or none has
    lists, structs, maps            theirs, part by part; of other shapes: refused
    binary and anything             the bytes of the canonical text
    anything else                   canonical text (``features.columns.text``)

A type that one of the readers lacks is written as the nearest exact one: float16 as float, times of day and durations
as text, moments in nanoseconds as microseconds (finer ones are refused when they are met).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce

import pyarrow as pa

from fieldwise.features.columns.batch import missing_column
from fieldwise.features.columns.text import canonical
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.files.listing import SourceFile, directory_columns
from fieldwise.features.source.raw import column_names, parquet_schema
from fieldwise.features.terminal import say

PROBABILITY, PARTITION = "probability", "date"
_TAKEN = {PROBABILITY: "the score's", PARTITION: "the partition's (date=...)"}
_TOLD = 100
"""Columns that a proposal spells out."""
_TEXT, _BYTES = pa.string(), pa.binary()
_FLOATS = {pa.float32(): 24, pa.float64(): 53}
"""Bits of an integer that a float holds exactly."""


def output_schema(
    source: SourceConfig, files: Sequence[SourceFile], wanted: Sequence[str] | None, lists: Collection[str]
) -> pa.Schema:
    """Columns to hand through and ``probability``.

    Args:
        wanted: names of source columns. Default: all, which every file must have then; jsonl must name them.
        lists: jsonl columns whose values are lists.

    Raises InputError for a column that a file lacks or whose types have nothing in common, ConfigError for names that
    the output needs itself or that readers cannot tell apart.
    """
    names = _names(source, files, wanted)
    _require_free(names, named=wanted is not None)
    types = _types(files, names) if source.format == "parquet" else {}
    if source.format == "jsonl":
        types = {name: pa.list_(_TEXT) for name in names if name in lists}
    fields = [pa.field(name, types.get(name, _TEXT)) for name in names]
    return pa.schema([*fields, pa.field(PROBABILITY, pa.float32())])


def written(array: pa.Array, field: pa.Field, path: str) -> pa.Array:
    """A column of one file as all files are written."""
    if array.type == field.type:
        return array
    try:
        if field.type == _BYTES and pa.types.is_fixed_size_binary(array.type):
            return array.cast(_BYTES)  # the bytes themselves, not the text that fields read them as
        if field.type in (_TEXT, _BYTES):
            return canonical(array, f"{path}, column {field.name!r}").cast(field.type)
        return array.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        exact, found = f"column {field.name!r} to be exact as {field.type}", str(error).splitlines()[0].rstrip(".")
        fix = "Leave the column out (--columns names those to write), or mend the file."
        raise InputError(path, expected=exact, found=found, fix=fix) from error


def _names(source: SourceConfig, files: Sequence[SourceFile], wanted: Sequence[str] | None) -> list[str]:
    """Those wanted, else those of all files, in the order of the first."""
    first: list[str] | None = None
    for path in (file.path for file in files):
        found = column_names(source, path)
        if found is None:  # rows of jsonl name their own
            return list(wanted or ())
        if not found:
            continue  # a file without a byte
        known = set(found)
        for name in wanted or ():
            if name not in known and name not in directory_columns(path):
                raise missing_column(path, name, found)
        first = found if first is None else first
        if wanted is None and known != set(first):
            odd = min(known ^ set(first))
            has, lacks = (path, files[0].path) if odd in known else (files[0].path, path)
            both = [name for name in first if name in known]
            raise InputError(
                lacks, expected=f"the columns of {has}, because all are to be written", found=f"no column {odd!r}",
                fix=f"Name columns that every file has: {_option(both)}.",
            )  # fmt: skip
    return list(wanted or first or ())


def _require_free(names: Sequence[str], *, named: bool) -> None:
    """Readers of partitioned Parquet take names that differ by case alone for one, as Spark does."""
    seen: dict[str, str] = {}
    for name in names:
        key = name.casefold()
        if key in _TAKEN or key in seen:
            why = f"the name is {_TAKEN[key]}" if key in _TAKEN else f"Spark takes it for {seen[key]!r}"
            rest: dict[str, str] = {}
            for other in names:
                rest.setdefault(other.casefold(), other)
            others = _option([other for folded, other in rest.items() if folded not in _TAKEN])
            fix = "Leave it out of --columns, or rename it" if named else f"Leave it out: {others}"
            raise ConfigError(
                "columns to write", expected=f"no column called {name!r} ({why})", found="one", fix=f"{fix}."
            )
        seen[key] = name


def _option(names: Sequence[str]) -> str:
    told = ",".join(names[:_TOLD]) + ",..." * (len(names) > _TOLD)
    return f"--columns {told}" if names else "none is left"


def _types(files: Sequence[SourceFile], names: Sequence[str]) -> dict[str, pa.DataType]:
    """The common type of each column over all Parquet files; says what becomes text."""
    schemas = [(file.path, schema, set(schema.names)) for file in files for schema in [parquet_schema(file.path)]]
    types = {}
    for name in names:
        origin: dict[pa.DataType, str] = {}
        for path, schema, known in schemas:
            kind = schema.field(name).type if name in known else _TEXT  # what a directory tells is text
            origin.setdefault(kind, path)
        told = ", ".join(f"{kind} in {path}" for kind, path in origin.items())
        try:
            kind = reduce(_common, map(_plain, origin))
        except _Apart:
            fix = "Leave it out (--columns names those to write), or write the files alike."
            raise InputError(f"column {name!r}", expected="a type in common", found=told, fix=fix) from None
        types[name] = _known(kind)
        if kind in (_TEXT, _BYTES) and not set(map(_plain, origin)) <= {kind, pa.null()}:
            say(f"column {name!r} is written as text: {told}")
    return types


class _Apart(Exception):
    """Types without anything in common."""


def _plain(kind: pa.DataType) -> pa.DataType:
    """The nearest exact type that every reader has."""
    t = pa.types
    if t.is_dictionary(kind):
        return _plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if t.is_large_string(kind) or t.is_time(kind) or t.is_duration(kind):
        return _TEXT
    if t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return _BYTES
    if t.is_float16(kind):
        return pa.float32()
    if t.is_date(kind):
        return pa.date32()
    if t.is_timestamp(kind):
        return pa.timestamp("ms" if kind.unit in ("s", "ms") else "us", "UTC" if kind.tz else None)
    if t.is_decimal(kind):
        return _decimal(kind.precision, kind.scale)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type))
    if t.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if t.is_struct(kind):
        return pa.struct([pa.field(part.name, _plain(part.type)) for part in kind])
    return kind


def _known(kind: pa.DataType) -> pa.DataType:
    """What was null in every file is text without values."""
    if pa.types.is_list(kind):
        return pa.list_(_known(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(part.name, _known(part.type)) for part in kind])
    return _TEXT if pa.types.is_null(kind) else kind


def _common(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that holds the values of both; _Apart where there is none. Both are plain."""
    t = pa.types
    if a == b or t.is_null(b):
        return a
    if t.is_null(a):
        return b
    if t.is_nested(a) or t.is_nested(b):
        return _common_nested(a, b)
    if _BYTES in (a, b):
        return _BYTES
    if t.is_integer(a) and t.is_integer(b):
        if t.is_signed_integer(a) == t.is_signed_integer(b):
            return a if a.bit_width > b.bit_width else b
        signed, unsigned = (a, b) if t.is_signed_integer(a) else (b, a)
        bits = max(signed.bit_width, 2 * unsigned.bit_width)
        return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits, _TEXT)
    if all(t.is_integer(kind) or t.is_floating(kind) for kind in (a, b)):
        digits = max(_FLOATS.get(kind, kind.bit_width) for kind in (a, b))
        return next((kind for kind, held in _FLOATS.items() if digits <= held), _TEXT)
    if t.is_decimal(a) and t.is_decimal(b):
        scale = max(a.scale, b.scale)
        return _decimal(scale + max(a.precision - a.scale, b.precision - b.scale), scale)
    if t.is_timestamp(a) and t.is_timestamp(b) and a.tz == b.tz:
        return pa.timestamp("us", a.tz)
    return _TEXT


def _common_nested(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_list(a) and t.is_list(b):
        return pa.list_(_common_value(a.value_type, b.value_type))
    if t.is_struct(a) and t.is_struct(b) and [part.name for part in a] == [part.name for part in b]:
        parts = [(mine.name, _common_value(mine.type, other.type)) for mine, other in zip(a, b, strict=True)]
        return pa.struct([pa.field(name, kind) for name, kind in parts])
    raise _Apart


def _common_value(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Inside lists and structs nothing becomes text: its canonical form is a column's."""
    kind = _common(a, b)
    if kind in (_TEXT, _BYTES) and not {a, b} <= {kind, pa.null()}:
        raise _Apart
    return kind


def _decimal(precision: int, scale: int) -> pa.DataType:
    return pa.decimal128(precision, scale) if precision <= 38 else _TEXT
