"""What every field kind answers, and what fields of values share: several values a row, flags, shared index spaces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.text import plain
from fieldwise.features.columns.vocabulary import Vocabulary
from fieldwise.features.schema import Strict

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

    def told(self, described: Sequence[str], raw: str) -> str:
        """A row's value to people, who know their data and no indices.

        Args:
            described: what each of its slots stands for, by ``describe``, else ``missing`` or ``unseen``; never empty.
            raw: the canonical text that it was read from; of several columns or values, with commas.
        """
        return ", ".join(described)


def problems_of(field: str, reason: str, bad: npt.NDArray[np.bool_], columns: Columns, column: str) -> list[Problem]:
    """The rows where ``bad`` holds, with their values in ``column``."""
    rows = np.flatnonzero(bad).tolist()
    return [Problem(row, field, reason, text_at(columns, column, row), column) for row in rows]


def first_of_rows(problems: Iterable[Problem]) -> dict[int, Problem]:
    """By row, in order of rows: a row is set aside once, for its first problem."""
    first = {problem.row: problem for problem in reversed(list(problems))}
    return dict(sorted(first.items()))


def all_but(rows: Iterable[int], n: int) -> npt.NDArray[np.bool_]:
    """[n]: False for these rows."""
    keep = np.ones(n, np.bool_)
    keep[list(rows)] = False
    return keep


def text_at(columns: Columns, column: str, row: int) -> str:
    """A value as people may read it, cut; empty for null."""
    value = plain(columns.array(column)[row])
    return "" if value is None else str(value)[:200]
