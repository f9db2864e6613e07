"""What every field kind answers, and what fields of values share: several values a row, flags, shared index spaces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from features import kernels
from features.schema import Names, Strict
from features.text import Columns, Texts, flags, plain, texts, valid_utf8
from features.vocabulary import Vocabulary

Slots = npt.NDArray[np.int32]
MAX_VALUES = 2**31 - 16


class Problem(NamedTuple):
    """A value that cannot be encoded. reason is one short word, such as ``bad_number``."""

    row: int
    field: str
    reason: str
    value: str
    column: str = ""
    """Raw column of the value. Default: those the field reads."""


@dataclass(frozen=True)
class Fit:
    """What fitting found out: the number of values, and edges or vocabulary where the kind has them."""

    values: int
    edges: tuple[float, ...] = ()
    vocabulary: Vocabulary | None = None


Encode = Callable[[Columns, Slots], list[Problem]]
"""Writes a field's local indices into ``out`` [slots, n] and tells which values could not be read."""


class BaseField(Strict):
    """What every kind answers."""

    name: str
    """Name of the field. ``names: [a, b]`` or ``name: C{1..26}`` declares several alike."""
    fitted: ClassVar[bool] = False
    """Whether training rows must be counted to fit the field."""
    hashed: ClassVar[bool] = False
    """Whether values meet in buckets."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Raw columns the field reads."""

    @property
    def lists(self) -> tuple[str, ...]:
        """Those among them whose values may be lists."""
        return ()

    @property
    def slots(self) -> int:
        return 1

    @property
    def mean(self) -> bool:
        """Whether several slots are pooled by their mean."""
        return False

    @property
    def source(self) -> str:
        """The field whose fit and index space this one uses: itself unless shared."""
        return self.name

    @property
    def needs_fit(self) -> bool:
        return self.fitted and self.source == self.name

    def check(self, columns: Columns) -> list[Problem]:
        """Values that no fit could encode."""
        return []

    def tally(self, columns: Columns) -> pa.Table:
        """(key binary, count int64) of a batch; tables of several batches are merged by summing equal keys."""
        raise NotImplementedError

    @abstractmethod
    def fit(self, tally: pa.Table | None) -> Fit:
        """From the merged tally of the training rows (None unless ``fitted``)."""

    @abstractmethod
    def encoder(self, fit: Fit) -> Encode: ...

    @abstractmethod
    def describe(self, fit: Fit, index: int) -> str:
        """What value number ``index`` (from 0) means to people."""


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
            kernels.spread_items(row, items.start, items.length, start, length)
        else:
            items = columns.texts(self.column)
            if self.separator is None:
                return [items, *[_unused(items)] * (self.slots - 1)]
            separator = np.frombuffer(self.separator.encode(), np.uint8)
            kernels.split_texts(items.data, items.start, items.length, separator, start, length)
        return [Texts(items.data, s, n) for s, n in zip(start, length, strict=True)]

    def _flag_texts(self, columns: Columns) -> list[Texts]:
        names = [name.encode() for name in self.flags or ()]
        data = np.frombuffer(b"".join(names) + b"\0", np.uint8)
        first = np.concatenate([[0], np.cumsum([len(n) for n in names])])
        start = np.zeros((self.slots, columns.rows), np.int64)
        length = np.full((self.slots, columns.rows), kernels.PADDING_VIEW, np.int32)
        used = np.zeros(columns.rows, np.int64)
        for position, name in enumerate(self.flags or ()):
            rows = np.flatnonzero(flags(columns.array(name))[0] & (used < self.slots))
            start[used[rows], rows], length[used[rows], rows] = first[position], len(names[position])
            used[rows] += 1
        length[0, used == 0] = -1
        return [Texts(data, s, n) for s, n in zip(start, length, strict=True)]


def problems_of(field: str, reason: str, bad: npt.NDArray[np.bool_], columns: Columns, column: str) -> list[Problem]:
    """The rows where ``bad`` holds, with their values in ``column``."""
    rows = np.flatnonzero(bad).tolist()
    return [Problem(row, field, reason, text_at(columns, column, row), column) for row in rows]


def text_at(columns: Columns, column: str, row: int) -> str:
    """A value as people may read it, cut; empty for null."""
    value = plain(columns.array(column)[row])
    return "" if value is None else str(value)[:200]


def _unused(like: Texts) -> Texts:
    return Texts(like.data, like.start, np.full(len(like), kernels.PADDING_VIEW, np.int32))
