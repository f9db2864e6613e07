"""Columns that must not become fields: they know the label, or they say nothing of rows that are still to come."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fieldwise.pipelines.init.guess.columns import Column

SURE = 0.25
"""Normalized entropy of a column alone below which it decides the label; good fields rarely reach 0.7."""
LEAST_POSITIVES = 20
"""Fewer rows of the rarer class prove nothing."""
UNIQUE = 0.9
"""Distinct values for each row from which on a column only numbers its rows."""
RARELY_AGAIN = 0.5
OFF = 0.1
"""How far a probability may be from the rate that it foretells, relatively, and still be known as one."""
_BINS = 64
_SMOOTH = 2.0

Floats = npt.NDArray[np.float64]


def leak(column: Column, positive: Floats) -> str | None:
    """How a column tells the label; None where it does not, or too few rows say so.

    Args:
        positive: [rows] 1, 0 or NaN.
    """
    known = ~np.isnan(positive)
    label = positive[known]
    if min(label.sum(), len(label) - label.sum()) < LEAST_POSITIVES:
        return None
    return _set_for_one_class(column.set[known], label) or (None if column.is_list else _decides(column, known, label))


def _set_for_one_class(is_set: npt.NDArray[np.bool_], label: Floats) -> str | None:
    """``attributed_time`` of a log of downloads: it has a value where the label is 1."""
    of_positives, of_negatives = is_set[label == 1].mean(), is_set[label == 0].mean()
    words = f"set in {of_positives:.1%} of the positives and {of_negatives:.1%} of the others"
    return words if abs(of_positives - of_negatives) > 0.9 else None


def _decides(column: Column, known: npt.NDArray[np.bool_], label: Floats) -> str | None:
    """By the rates of its values in one half of the rows, used in the other; or it is itself a probability of it."""
    codes = column.codes[known]
    if column.numeric and column.distinct > _BINS:
        codes = _binned(column)[codes] * (codes >= 0) - (codes < 0)
        if _is_probability(column) and _calibrated(column.numbers, column.codes[known], label):
            return "it reads as a probability of the label itself, of another model perhaps"
    half = np.random.default_rng(0).random(len(label)) < 0.5
    groups = int(codes.max(initial=0)) + 2
    rate = float(np.clip(label[half].mean(), 1e-6, 1 - 1e-6))
    seen = np.bincount(codes[half] + 1, minlength=groups)
    hits = np.bincount(codes[half] + 1, label[half], minlength=groups)
    p = np.clip((hits + _SMOOTH * rate) / (seen + _SMOOTH), 1e-6, 1 - 1e-6)[codes[~half] + 1]
    other = label[~half]
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    loss = -(other * np.log(p) + (1 - other) * np.log(1 - p)).mean()
    if loss >= SURE * entropy:
        return None
    return f"it alone explains {1 - loss / entropy:.0%} of the label"


def _binned(column: Column) -> npt.NDArray[np.int64]:
    """[distinct] Bins of about equal numbers of rows."""
    order = np.argsort(column.numbers)
    share = np.cumsum(column.counts[order]) / column.counts.sum()
    bins = np.empty(len(order), np.int64)
    bins[order] = np.minimum((share * _BINS).astype(np.int64), _BINS - 1)
    return bins


def _is_probability(column: Column) -> bool:
    return not column.whole and bool(column.numbers.min() >= 0 and column.numbers.max() <= 1)


def _calibrated(numbers: Floats, codes: npt.NDArray[np.int64], label: Floats) -> bool:
    """Whether in ten groups of rows, from low to high numbers, the mean number is the label's rate."""
    there = codes >= 0
    number, hit = numbers[codes[there]], label[there]
    order = np.argsort(number, kind="stable")
    apart = []
    for part in np.array_split(order, 10):
        mean, rate = number[part].mean(), hit[part].mean()
        error = np.sqrt(max(mean * (1 - mean), 1e-9) / len(part))
        apart.append(abs(mean - rate) <= 4 * error + OFF * rate)
    spread = number[order[-len(order) // 10 :]].mean() - number[order[: len(order) // 10 + 1]].mean()
    return all(apart) and bool(spread > 0.5 * hit.mean())


def is_row_number(column: Column) -> bool:
    """Whether (nearly) every row has a value of its own, so that the values of later rows are all new."""
    return not column.is_list and column.rows >= 50 and column.distinct >= UNIQUE * column.set.sum() > 0
