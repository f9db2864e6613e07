"""Fields of values written in a column, in a list of a column, or as flag columns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.text import Texts, flags, texts, valid_utf8
from fieldwise.features.fields.base import BaseField, Problem, problems_of
from fieldwise.features.kernels import strings
from fieldwise.features.schema import Names


class ValuedField(BaseField):
    """A field of values written in a column, in a list of a column, or as flag columns."""

    column: str = ""
    """Raw column. Default: the field's name."""
    separator: str | None = None
    """Text between the values of a multi-valued field. Lists in jsonl and Parquet need none, only ``max_values``."""
    max_values: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Slots of a multi-valued field: its first values in order are kept. Default: 8, or the number of flags if less."""
    pooling: Literal["mean", "sum"] = "mean"
    """How the values of a multi-valued field become one."""
    flags: Names | None = None
    """Columns of 0/1 gathered into one multi-valued field whose values are the names of the set columns."""
    shares: str | None = None
    """Another field of this kind whose values, index space and embedding rows are used."""

    @model_validator(mode="before")
    @classmethod
    def _column(cls, data: Any) -> Any:
        if isinstance(data, dict) and "name" in data and not data.get("column"):
            return {**data, "column": data["name"]}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> ValuedField:
        if self.separator == "":
            raise ValueError("a separator that is not empty")
        if self.shares == self.name:
            raise ValueError("another field to share the index space of")
        for key in ("buckets", "min_count", "max_size"):
            declared = type(self).model_fields.get(key)
            if self.shares and declared is not None and getattr(self, key) != declared.default:
                raise ValueError(f"no {key}, since that of {self.shares!r} holds for all that share it")
        if self.flags is not None and (self.separator is not None or self.column != self.name):
            raise ValueError("neither column nor separator beside flags")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.flags) if self.flags is not None else (self.column,)

    @property
    def lists(self) -> tuple[str, ...]:
        return (self.column,) if self.many and self.flags is None and self.separator is None else ()

    @property
    def many(self) -> bool:
        return self.separator is not None or self.flags is not None or self.max_values is not None

    @property
    def slots(self) -> int:
        if not self.many:
            return 1
        return self.max_values or min(8, len(self.flags or range(8)))

    @property
    def mean(self) -> bool:
        return self.many and self.pooling == "mean"

    @property
    def source(self) -> str:
        return self.shares or self.name

    def check(self, columns: Columns) -> list[Problem]:
        problems: list[Problem] = []
        for name in self.columns:
            kind = columns.kind(name)
            if self.flags is not None:
                problems += problems_of(
                    self.name, "bad_flag", flags(columns.array(name), columns.where(name))[1], columns, name
                )
            elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                problems += problems_of(self.name, "undecodable", ~valid_utf8(columns.texts(name)), columns, name)
        return problems

    def texts(self, columns: Columns) -> list[Texts]:
        """One per slot."""
        if self.flags is not None:
            return self._flag_texts(columns)
        if not self.many:
            return [columns.texts(self.column)]
        kind = columns.kind(self.column)
        start = np.empty((self.slots, columns.rows), np.int64)
        length = np.empty((self.slots, columns.rows), np.int32)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            array = columns.array(self.column)
            items = texts(array.flatten(), columns.where(self.column))
            counts = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            row = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            strings.spread_items(row, items.start, items.length, start, length)
        else:
            items = columns.texts(self.column)
            if self.separator is None:
                return [items, *[_unused(items)] * (self.slots - 1)]
            separator = np.frombuffer(self.separator.encode(), np.uint8)
            strings.split_texts(items.data, items.start, items.length, separator, start, length)
        return [Texts(items.data, s, n) for s, n in zip(start, length, strict=True)]

    def _flag_texts(self, columns: Columns) -> list[Texts]:
        names = [name.encode() for name in self.flags or ()]
        data = np.frombuffer(b"".join(names) + b"\0", np.uint8)
        first = np.concatenate([[0], np.cumsum([len(n) for n in names])])
        start = np.zeros((self.slots, columns.rows), np.int64)
        length = np.full((self.slots, columns.rows), strings.PADDING_VIEW, np.int32)
        used = np.zeros(columns.rows, np.int64)
        for position, name in enumerate(self.flags or ()):
            rows = np.flatnonzero(flags(columns.array(name))[0] & (used < self.slots))
            start[used[rows], rows], length[used[rows], rows] = first[position], len(names[position])
            used[rows] += 1
        length[0, used == 0] = -1
        return [Texts(data, s, n) for s, n in zip(start, length, strict=True)]


def _unused(like: Texts) -> Texts:
    return Texts(like.data, like.start, np.full(len(like), strings.PADDING_VIEW, np.int32))
