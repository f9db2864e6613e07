"""Columns as texts, numbers and moments: the one place that says how a value of any type reads.

Canonical text of a typed value (what is hashed and looked up): integers in decimal; booleans ``true``/``false``; floats
that are whole and below 2^53 as integers, others as the shortest text that reads back; dates and timestamps as Arrow
prints them (``2020-01-31``, ``2020-01-31 15:04:05``); decimals with their scale; UUIDs in lower case with hyphens,
other bytes of a fixed size in lower-case hexadecimal, bytes of any size as the UTF-8 they must be. Null, the empty
text, NaN are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Bool, Float64, Int32, Int64, UInt8
from fieldwise.features.columns.moment import DAY, EPOCHS, TimeConfig, to_utc
from fieldwise.features.errors import InputError
from fieldwise.features.kernels import numerals, strings

_NUMERIC = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
"""What Arrow turns into the nearest float64. Not decimals: its quotient is off by a bit in one of seven prices."""
_NOTHING = np.zeros(8, np.uint8)


@dataclass(frozen=True)
class Texts:
    """Views into one byte buffer. length: -1 null, 0 empty (both missing), ``kernels.PADDING_VIEW`` unused slot."""

    data: UInt8
    start: Int64
    length: Int32

    def __len__(self) -> int:
        return len(self.start)

    def bytes_at(self, row: int) -> bytes:
        return self.data[self.start[row] : self.start[row] + max(self.length[row], 0)].tobytes()

    def take(self, rows: Int64) -> Texts:
        return Texts(self.data, self.start[rows], self.length[rows])

    def to_arrow(self) -> pa.StringArray:
        """A copy as a string array without nulls, below 2 GB."""
        out = np.empty(int(np.maximum(self.length, 0).sum(dtype=np.int64)) + 8, np.uint8)
        assert len(out) < 1 << 31
        offset = np.empty(len(self) + 1, np.int32)
        size = strings.copy_texts(self.data, self.start, self.length, out, offset)
        return pa.StringArray.from_buffers(len(self), pa.py_buffer(offset), pa.py_buffer(out[:size]))


def plain(value: pa.Scalar) -> Any:
    """A value as Python has it, or what it is stored as where Python has none: years beyond 9999, nanoseconds, zones
    that nobody knows, text that is no UTF-8."""
    try:
        return value.as_py()
    except UnicodeDecodeError:
        stored = value.as_buffer().to_pybytes() if hasattr(value, "as_buffer") else str(value.type).encode()
        return stored.decode("utf-8", "replace")
    except (ValueError, OverflowError, LookupError):
        return value.value if hasattr(value, "value") else str(value.type)


def canonical(array: pa.Array, where: str = "a column") -> pa.Array:
    """The column as (large) strings; see the module's text. Binary is taken for UTF-8: ``valid_utf8`` tells.

    InputError, which names ``where``, for a type that has no text.
    """
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return array.view(pa.string() if pa.types.is_binary(kind) else pa.large_string())
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_dictionary(kind):
        return canonical(array.dictionary_decode(), where)
    if pa.types.is_fixed_size_binary(kind):
        return _hexadecimal(array)
    if pa.types.is_float16(kind):
        array = pa.array(array.to_numpy(zero_copy_only=False).astype(np.float32), mask=_nulls(array))
        kind = array.type
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
        whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), pa.scalar(2.0**53, kind)))
        integers = pc.cast(pc.if_else(whole, array, pa.scalar(0, kind)), pa.int64())
        return pc.if_else(whole, pc.cast(integers, pa.string()), pc.cast(array, pa.string()))
    if pa.types.is_timestamp(kind):
        return _moment_texts(array)
    try:
        if not pa.types.is_nested(kind):
            return pc.cast(array, pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        pass  # a type without a text of its own: told below, like the nested ones
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    fix = (
        "To read several values, set `max_values` on its field." if listed else "Write what it holds as plain columns."
    )
    raise InputError(where, expected="single values", found=f"type {kind}", fix=fix)


def _moment_texts(array: pa.Array) -> pa.Array:
    """``2020-01-31 15:04:05``, with a fraction where there is one and Z where there is a zone: the moment decides, not
    the unit or the zone that a writer chose."""
    zoned = array.type.tz is not None
    told = pc.cast(array.cast(pa.timestamp(array.type.unit, "UTC")) if zoned else array, pa.string())
    if array.type.unit == "s":
        return told
    return pc.replace_substring_regex(told, r"\.?0*(Z?)$", r"\1")


def _nulls(array: pa.Array) -> Bool:
    found: Bool = array.is_null().to_numpy(zero_copy_only=False)
    return found


def _digits(array: pa.Array) -> UInt8:
    """[n, 2 x width]: the bytes of a fixed-size binary array in hexadecimal."""
    width, signs = array.type.byte_width, np.frombuffer(b"0123456789abcdef", np.uint8)
    data = array.buffers()[1]
    flat = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    held = flat[array.offset * width : (array.offset + len(array)) * width].reshape(len(array), width)
    return np.stack([signs[held >> 4], signs[held & 15]], axis=2).reshape(len(array), 2 * width)


def _rows_of_text(rows: UInt8, nulls: Bool) -> pa.Array:
    offset = np.arange(0, rows.size + 1, rows.shape[1] or 1, dtype=np.int64)
    texts_of = pa.LargeStringArray.from_buffers(
        len(rows), pa.py_buffer(offset), pa.py_buffer(np.ascontiguousarray(rows))
    )
    return pc.if_else(pa.array(nulls), pa.scalar(None, pa.large_string()), texts_of)


def _hexadecimal(array: pa.Array) -> pa.Array:
    return (
        _rows_of_text(_digits(array), _nulls(array))
        if array.type.byte_width
        else pc.cast(array, pa.binary()).view(pa.string())
    )


def as_uuid(array: pa.Array) -> pa.Array:
    """Sixteen bytes each as the text of a UUID."""
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    digits = _digits(array)
    text = np.full((len(array), 36), ord("-"), np.uint8)
    for first, stop, place in ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24)):
        text[:, place : place + stop - first] = digits[:, first:stop]
    return _rows_of_text(text, _nulls(array))


def texts(array: pa.Array, where: str = "a column") -> Texts:
    """Views straight over the Arrow buffers (slices included), no copy of the bytes."""
    array = canonical(array, where)
    n = len(array)
    if n == 0:
        return Texts(_NOTHING, np.empty(0, np.int64), np.empty(0, np.int32))
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, offsets, data = array.buffers()
    offset = np.frombuffer(offsets, np.int64 if wide else np.int32)[array.offset : array.offset + n + 1]
    length = np.diff(offset).astype(np.int32, copy=False)
    if array.null_count:
        length[array.is_null().to_numpy(zero_copy_only=False)] = -1
    view = np.frombuffer(data, np.uint8) if data is not None and data.size else _NOTHING
    return Texts(view, offset[:-1].astype(np.int64), length)


def numbers(array: pa.Array, where: str = "a column") -> tuple[Float64, Bool]:
    """(values, bad): float64 (correctly rounded) with NaN for missing, and rows whose text is no number."""
    kind = array.type
    if any(test(kind) for test in _NUMERIC):
        values = pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(values, np.float64), np.zeros(len(array), np.bool_)
    return text_numbers(texts(array, where))


def text_numbers(views: Texts) -> tuple[Float64, Bool]:
    """``numbers`` of texts."""
    out, status = np.empty(len(views)), np.empty(len(views), np.uint8)
    if numerals.read_decimals(views.data, views.start, views.length, out, status):
        for row in np.flatnonzero(status == numerals.HARD).tolist():
            out[row] = float(views.bytes_at(row))
    return out, status == numerals.BAD


def flags(array: pa.Array, where: str = "a column") -> tuple[Bool, Bool]:
    """(set, bad) of 0/1 or true/false; missing is not set."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        lower = pc.utf8_lower(array)
        array = pc.if_else(pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", array))
    values, bad = numbers(array, where)
    return values == 1, bad | ~((values == 0) | (values == 1) | np.isnan(values))


def valid_utf8(views: Texts) -> Bool:
    """Which texts are UTF-8."""
    out = np.empty(len(views), np.bool_)
    strings.check_utf8(views.data, views.start, views.length, out)
    return out


def moments(array: pa.Array, config: TimeConfig, where: str = "a column") -> tuple[Int64, Bool, Bool]:
    """(microseconds since 1970 UTC, missing, bad). A moment outside ``earliest``..``latest`` is bad."""
    out, missing, bad = moments_of_any_year(array, config, where)
    first, stop = config.bounds
    bad = bad | ~missing & ((out < first) | (out >= stop))
    return np.where(bad, 0, out), missing, bad


def moments_of_any_year(array: pa.Array, config: TimeConfig, where: str = "a column") -> tuple[Int64, Bool, Bool]:
    """``moments`` of any year."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        out = _typed_moments(array)
        if not (pa.types.is_timestamp(kind) and kind.tz is not None):
            out = to_utc(out, config.zone)
        return out, array.is_null().to_numpy(zero_copy_only=False), np.zeros(len(array), np.bool_)
    if config.format in EPOCHS:
        return _epoch(array, EPOCHS[config.format], where)
    views = texts(array, where)
    n = len(views)
    out, zone_known, status = np.empty(n, np.int64), np.empty(n, np.bool_), np.empty(n, np.uint8)
    numerals.read_moments(views.data, views.start, views.length, config.directives, out, zone_known, status)
    naive = (status == numerals.OK) & ~zone_known
    out[naive] = to_utc(out[naive], config.zone)
    missing, bad = status == numerals.EMPTY, status == numerals.BAD
    if config.format == "auto" and bad.any():
        rows = np.flatnonzero(bad)
        out[rows], missing[rows], bad[rows] = _epoch(array.take(pa.array(rows)), EPOCHS["epoch_s"], where)
    return out, missing, bad


_FAR = 4 * 10**17
"""Microseconds beyond any calendar, and far from the end of int64."""


def _typed_moments(array: pa.Array) -> Int64:
    """Microseconds of timestamps and dates, cut at ``_FAR`` (a cast would wrap around); 0 for null."""
    kind = array.type
    number = pc.cast(array, pa.int32() if pa.types.is_date32(kind) else pa.int64())
    values = number.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    unit = kind.unit if pa.types.is_timestamp(kind) else "day" if pa.types.is_date32(kind) else "ms"
    if unit == "ns":
        return values // 1000
    scale = {"day": DAY, "s": 1_000_000, "ms": 1000, "us": 1}[unit]
    return np.clip(values, -_FAR // scale, _FAR // scale) * scale


def _epoch(array: pa.Array, scale: float, where: str = "a column") -> tuple[Int64, Bool, Bool]:
    values, bad = numbers(array, where)
    missing = np.isnan(values) & ~bad
    bad = bad | (np.abs(values) > _FAR / scale)
    return np.where(bad | missing, 0, np.rint(np.where(bad, 0, values) * scale)).astype(np.int64), missing, bad


def decoded(column: pa.Array) -> pa.Array:
    """The column without dictionary, extension or fixed size of its lists."""
    if pa.types.is_dictionary(column.type):
        return decoded(column.dictionary_decode())
    if isinstance(column, pa.ExtensionArray):
        return as_uuid(column) if column.type.extension_name == "arrow.uuid" else decoded(column.storage)
    if pa.types.is_fixed_size_list(column.type):
        return column.cast(pa.list_(column.type.value_type))
    return column
