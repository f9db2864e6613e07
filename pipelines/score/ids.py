"""Ids of contexts and items: compared by their canonical text (see ``features.columns.text``), exactly, whatever their
columns.

The integer 7, the float 7.0 and the text ``7`` are one id; ``007`` and the text ``7.0`` are others. Columns of integers
are ordered and written as integers (int64, or uint64 where a value needs it), all others as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Bool
from fieldwise.features.columns.text import canonical, texts, valid_utf8
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import SourceFile
from fieldwise.features.source.raw import parquet_schema

_SIGN = np.uint64(1 << 63)


def identity(column: pa.Array, where: str) -> pa.Array:
    """Ids as they are kept: int64, uint64 (of columns of that type), or their canonical text; null where it is none.

    Raises InputError naming ``where`` for types without a text.
    """
    kind = column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.uint64() if pa.types.is_uint64(kind) else pa.int64())
    text = _text(column, where)
    return pc.if_else(pc.equal(pc.binary_length(text), 0), pa.scalar(None, pa.string()), text)


def _text(column: pa.Array, where: str) -> pa.Array:
    try:
        text = canonical(column).cast(pa.string())
    except (InputError, pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise InputError(
            where, expected="ids that are texts, numbers or dates", found=f"type {column.type}",
            fix="Write them as text or integers.",
        ) from None  # fmt: skip
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pc.if_else(pa.array(valid_utf8(texts(text))), text, pa.scalar(None, pa.string()))
    return text


def undecodable(column: pa.Array) -> Bool:
    """Values of a binary column that are no UTF-8, so that they are no id, though not missing."""
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return np.zeros(len(column), np.bool_)
    return ~valid_utf8(texts(column)) & column.is_valid().to_numpy(zero_copy_only=False)


def together(parts: Sequence[pa.Array], where: str) -> pa.Array:
    """The ids of one side: integers if all columns are, else texts, so that 7 and ``7`` of two files are one id."""
    kinds = {part.type for part in parts}
    if pa.string() in kinds:
        return pa.concat_arrays([canonical(part).cast(pa.string()) for part in parts])
    return narrowed(pa.concat_arrays(_of_one_sign(parts, where))) if parts else pa.nulls(0, pa.string())


def _of_one_sign(parts: Sequence[pa.Array], where: str) -> list[pa.Array]:
    for kind in (pa.int64(), pa.uint64()):
        try:
            return [part.cast(kind) for part in parts]
        except pa.ArrowInvalid:
            continue
    raise InputError(
        where,
        expected="ids of one integer type",
        found="negative ones and ones beyond 2^63 - 1",
        fix="Write them as text.",
    )


def narrowed(ids: pa.Array) -> pa.Array:
    """uint64 as int64 where every id fits."""
    if not pa.types.is_uint64(ids.type):
        return ids
    largest = pc.max(ids).as_py()
    return ids.cast(pa.int64()) if largest is None or largest < 1 << 63 else ids


def column_types(source: SourceConfig, files: Sequence[SourceFile], name: str, where: str) -> list[pa.DataType]:
    """Of a column of ids in each file; text where files do not say. InputError for types without a text."""
    if source.format != "parquet":
        return [pa.string()]
    found = []
    for file in files:
        schema = parquet_schema(file.path)
        kind = schema.field(name).type if name in schema.names else pa.string()
        identity(pa.nulls(0, kind.value_type if pa.types.is_dictionary(kind) else kind), f"{where}: column {name!r}")
        found.append(kind)
    return found


class IdKind(Enum):
    """How the ids of the contexts travel through Spark, which has no uint64: in the order of their values."""

    TEXT = "text"
    SIGNED = "int64"
    UNSIGNED = "uint64"
    """As int64, less 2^63."""

    @staticmethod
    def of(types: Sequence[pa.DataType]) -> IdKind:
        """From the types of the column in all files."""
        if not types or not all(map(pa.types.is_integer, types)):
            return IdKind.TEXT
        return IdKind.UNSIGNED if all(map(pa.types.is_uint64, types)) else IdKind.SIGNED

    @property
    def arrow(self) -> pa.DataType:
        return pa.string() if self is IdKind.TEXT else pa.int64()

    @property
    def spark(self) -> str:
        return "string" if self is IdKind.TEXT else "bigint"

    def packed(self, ids: pa.Array) -> tuple[pa.Array, Bool]:
        """Ids as they travel, and which are ids that a context can have at all; the others are null."""
        if self is IdKind.TEXT:
            text = canonical(ids).cast(pa.string())
            return text, text.is_valid().to_numpy(zero_copy_only=False)
        unsigned = self is IdKind.UNSIGNED
        values, can = _integers(ids, unsigned=unsigned)
        if unsigned:
            values = values ^ _SIGN
        return pa.array(values.view(np.int64), mask=~can), can

    def unpacked(self, ids: pa.Array, wide: bool) -> pa.Array:
        """Ids as they are written; ``wide``: some are beyond 2^63 - 1."""
        if self is not IdKind.UNSIGNED:
            return ids
        values = pa.array(ids.to_numpy(zero_copy_only=False).view(np.uint64) ^ _SIGN)
        return values if wide else values.cast(pa.int64())


def wide(ids: pa.Array) -> int:
    """How many ids no int64 holds."""
    return (
        0
        if not pa.types.is_uint64(ids.type)
        else int(pc.sum(pc.greater(ids, pa.scalar(2**63 - 1, ids.type))).as_py() or 0)
    )


_DIGITS = {False: r"^(0|-?[1-9][0-9]{0,18})$", True: r"^(0|[1-9][0-9]{0,19})$"}
_LARGEST = {False: {19: str(2**63 - 1), 20: str(-(2**63))}, True: {20: str(2**64 - 1)}}


def _integers(ids: pa.Array, *, unsigned: bool) -> tuple[npt.NDArray[np.uint64], Bool]:
    """(values modulo 2^64, which ids are the canonical text of an integer that fits)."""
    if pa.types.is_string(ids.type):
        can = pc.match_substring_regex(ids, _DIGITS[unsigned])
        length = pc.binary_length(ids)
        for size, largest in _LARGEST[unsigned].items():  # texts of one length and sign are in the order of their sizes
            can = pc.and_(can, pc.invert(pc.and_(pc.equal(length, size), pc.greater(ids, largest))))
        can = pc.fill_null(can, False)
        values = pc.if_else(can, ids, "0").cast(pa.uint64() if unsigned else pa.int64())
    else:
        can = ids.is_valid()
        if unsigned and not pa.types.is_uint64(ids.type):
            can = pc.and_(can, pc.fill_null(pc.greater_equal(ids, 0), False))
        elif not unsigned and pa.types.is_uint64(ids.type):
            can = pc.and_(can, pc.fill_null(pc.less(ids, pa.scalar(1 << 63, ids.type)), False))
        values = pc.if_else(can, ids, pa.scalar(0, ids.type))
    return values.to_numpy(zero_copy_only=False).view(np.uint64), can.to_numpy(zero_copy_only=False)
