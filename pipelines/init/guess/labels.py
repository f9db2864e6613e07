"""Which column is the label, by its name first, then by its values; and what may be one, where none is known to be."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.expression import Expression, among, quoted
from fieldwise.features.errors import InputError
from fieldwise.features.words import YES, YES_AND_NO, some, spellings
from fieldwise.pipelines.init.guess.columns import FEW_BAD, Column, follows, shown, words_of

LABELS = (
    "click", "clicked", "clicks", "label", "target", "attributed", "converted", "conversion", "purchased", "purchase",
    "bought", "installed", "install", "liked", "like", "played", "watched", "opened", "booked", "ordered", "subscribed",
    "response", "responded", "outcome", "y",
)  # fmt: skip
RATINGS = ("rating", "ratings", "stars", "score", "grade")
EVENTS = ("event", "action", "type", "behavior", "behaviour", "interaction", "activity")
WANTED = ("click", "clicked", "purchase", "buy", "bought", "order", "transaction", "convert", "conversion", "cart",
          "addtocart", "install", "like", "favorite", "fav", "pay", "play", "watch", "book", "subscribe")  # fmt: skip
"""Values of events that count as positives."""
_ATTRIBUTES = ("device", "platform", "os", "browser", "channel", "source", "medium", "gender", "sex", "language",
               "lang", "country", "region", "currency", "plan", "tier", "segment", "group", "variant", "autoplay",
               "shuffle", "mobile", "app", "member", "premium", "weekend", "method", "type")  # fmt: skip
"""Names of columns of few values that are no outcome."""
_SHARES = ("percent", "percentage", "pct", "prozent", "progress", "completion", "completed")
"""Names of columns that say how much of an item was had."""
_PERCENT = re.compile(r"[+-]?\d+(?:[.,]\d+)?\s?%")
_MOST_SPELLINGS = 12
"""Of yes and no together."""
MOST_STEPS = 101
"""Values of a rating."""


@dataclass(frozen=True)
class Label:
    """What counts as a positive."""

    expression: str
    columns: tuple[str, ...]
    reason: str
    positive: npt.NDArray[np.float64]
    """[rows] 1, 0, or NaN for rows without a label."""

    @property
    def rate(self) -> float:
        return float(np.nanmean(self.positive))

    @property
    def missing(self) -> float:
        return float(np.isnan(self.positive).mean())


def find_label(columns: Mapping[str, Column], table: pa.Table, named: bool, asked: str | None) -> Label | None:
    """The label; None where every row may be a positive.

    Args:
        table: the sample that ``columns`` are of.
        named: whether the source names its columns.
        asked: what the user says it is.
    """
    if asked is not None and asked.strip() == "true":
        return None
    if asked is not None:
        expression = Expression(asked, "--label")
        for name in expression.columns:
            if name not in columns:
                found = some([shown(name) for name in columns])
                fix = "Name one of these, in backticks where the name is no word."
                raise InputError("--label", expected=f"a column {name!r} of the log", found=found, fix=fix)
        return _label(asked, table, "as --label says", needed=True)
    for told, reason in _told(columns, named):
        label = _label(told, table, reason)
        if label is not None:
            return label
    if named:
        _require_none_called_so(columns)
    return None


def _require_none_called_so(columns: Mapping[str, Column]) -> None:
    """InputError for a column that is called like a label, whose values do not say which are positives."""
    for name, column in columns.items():
        word, called = quoted(name), [part for part in words_of(name) if part not in ("is", "was", "has", "did")]
        if word is None or len(called) != 1 or called[0] not in LABELS or column.is_list or not column.distinct:
            continue
        values = column.some(8)
        if column.distinct == 1 and values[0].lower() in {*YES, "1", "1.0", "true"}:
            continue
        if column.distinct == 1:
            positive = "rating >= 4"
        elif column.numeric:
            positive = f"{word} >= 1" if column.numbers.min() == 0 else f"{word} == {column.numbers.max():g}"
        else:
            told = [value for value in values if value.lower() in YES]
            positive = among(word, spellings(told, values) if told else values[:1])
        raise _unsure(
            f"two values in {shown(name)!r}, such as 0 and 1 or yes and no",
            f"{column.distinct:,}: {shown(', '.join(values), 60)}" + " in all rows" * (column.distinct == 1),
            f": --label {shlex.quote(positive)}",
        )


def require_no_outcome(columns: Mapping[str, Column], taken: Sequence[str], own: Sequence[Column]) -> None:
    """InputError where no column was found to be the label, and one may be it all the same: of two values, or
    shares in percent.

    Args:
        taken: columns that are of something else.
        own: context and item, whose properties are no outcomes.
    """
    for name, column in columns.items():
        word = quoted(name)
        if word is None or name in taken or column.is_list or not column.distinct:
            continue
        signed = column.distinct > 2 and all(_PERCENT.fullmatch(text) for text in column.some())
        share = column.distinct > 2 and column.numeric and column.numbers.min() >= 0 and column.numbers.max() <= 100
        percent = signed or (share and any(part in _SHARES for part in words_of(name)))
        if not percent and (column.distinct != 2 or any(part in _ATTRIBUTES for part in words_of(name))):
            continue
        if any(follows(column, one) for one in own):
            continue
        rarer = str(column.values[int(column.counts.argmin())].as_py())
        high = 80 if signed or column.numbers.max() > 1 else 0.8
        positive = f"{word} >= {high}" if percent else _binary(word, column) or among(word, [rarer])
        raise _unsure(
            "a column that says which rows are positives, by a name and values that are known here",
            f"{shown(name)!r}, which may be it: {shown(', '.join(column.some(8)), 60)}",
            f", {'write it without the sign, then' if signed else 'such as'} --label {shlex.quote(positive)}",
        )


def no_label(columns: Mapping[str, Column]) -> InputError:
    two = {word: column for name, column in columns.items() if column.distinct == 2 and (word := quoted(name))}
    able = [said for word, column in two.items() if (said := _binary(word, column))]
    example = [*able, *(among(word, column.some(1)[:1]) for word, column in two.items()), 'event == "click"'][0]
    return _unsure(
        "a column of 0 and 1, of ratings or of events that says which rows are positives",
        f"none among {some([shown(name) for name in columns])}",
        f": --label 'rating >= 4', or --label '{example}'",
        " and --context COLUMN --item COLUMN",
    )


def _unsure(expected: str, found: str, how: str, beside: str = "") -> InputError:
    fix = f"Say what a positive is{how}; of a log of positives alone, --label true{beside}."
    return InputError("label", expected=expected, found=found, fix=fix)


def _told(columns: Mapping[str, Column], named: bool) -> list[tuple[str, str]]:
    """(expression, reason) of what may be a label, the likeliest first."""
    found: list[tuple[float, str, str]] = []
    for place, (name, column) in enumerate(columns.items()):
        word = quoted(name)
        if word is None or column.is_list or not column.distinct:
            continue
        names = words_of(name)
        hint = max((2.0 - LABELS.index(w) / 100 for w in names if w in LABELS), default=0.0)
        hint += 1.0 * (len(names) == 1 and hint > 0)
        binary = _binary(word, column)
        if binary:
            weight = 10 * hint if named else 10.0 * (place == 0)
            weight += column.missing < FEW_BAD
            why = "its name" if hint and named else "the first column" if not place else "the only one of its kind"
            found.append((weight + 1, binary, f"{why}, and two values"))
        elif _rating(names, column, named):
            cut = _cut(column)
            reason = f"ratings {column.range}: the upper ones count as positives"
            found.append((9 - place / 100, f"{word} >= {cut:g}", reason))
        elif any(w in EVENTS for w in names) and 2 <= column.distinct <= 50:
            wanted = sorted(filter(_wanted, column.values.to_pylist()), key=lambda v: WANTED.index(_wanted(v) or ""))
            if 0 < len(wanted) < column.distinct:
                reason = f"events {shown(', '.join(column.values.to_pylist()[:8]), 60)}"
                found.append((9.5 - place / 100, among(word, wanted), reason))
    sure = [one for one in found if one[0] > 5]
    others = [expression for weight, expression, _ in found if weight <= 5]
    if len(others) == 1 and (not sure or (not named and max(sure)[0] < 10)):  # what has no name is hardly a rating
        sure = [(10.0, others[0], "the only column of two values: CHECK that it is what you want to predict")]
    return [(expression, reason) for _, expression, reason in sorted(sure, key=lambda one: -one[0])]


def _binary(word: str, column: Column) -> str | None:
    """An expression for a column of two values, in whatever case; None where neither says yes."""
    if column.numeric and set(column.numbers) in ({0.0, 1.0}, {-1.0, 1.0}):
        return word if column.numbers.min() == 0 else f"{word} == 1"
    values: list[str] = column.values.to_pylist() if column.distinct <= _MOST_SPELLINGS else []
    seen = {value.lower() for value in values}
    if seen == {"true", "false"}:
        return word
    for yes, no in YES_AND_NO:
        if seen == {yes, no}:
            return among(word, spellings([value for value in values if value.lower() == yes], values))
    return None


def _rating(names: Sequence[str], column: Column, named: bool) -> bool:
    """Whether a column holds grades of a short scale."""
    if not column.numeric or not 3 <= column.distinct <= MOST_STEPS or column.total < 10 * column.distinct:
        return False
    if named:
        return any(name in RATINGS for name in names)
    return column.whole and column.distinct <= 11 and column.numbers.min() >= 0 and column.numbers.max() <= 10


def _cut(column: Column) -> float:
    """From which grade on a row is a positive: four fifths of the scale, or the next grade that leaves negatives."""
    steps = np.sort(column.numbers)
    above = steps[steps >= 0.8 * steps[-1]]
    return float(above[0] if above[0] > steps[0] else steps[1])


def _wanted(value: str) -> str | None:
    """The word of an event that makes it a positive."""
    return next((word for word in words_of(value) if word in WANTED), None)


def _label(expression: str, table: pa.Table, reason: str, *, needed: bool = False) -> Label | None:
    """An expression on the sample, as features will evaluate it; None where it does not leave both classes."""
    parsed = Expression(expression, "--label" if needed else "label")
    values, bad = parsed.evaluate(table)
    positive = values.cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
    positive[bad | ~np.isin(positive, (0.0, 1.0))] = np.nan
    both = {0.0, 1.0} <= set(np.unique(positive[~np.isnan(positive)]).tolist())
    if needed and not both:
        fix = 'Write one that is true for positives alone, such as `rating >= 4` or `event == "click"`.'
        found = f"{shown(expression, 80)}, which has not both in the rows that were looked at"
        raise InputError("--label", expected="positives and negatives", found=found, fix=fix)
    return Label(expression, parsed.columns, reason, positive) if both else None
