"""How far rows have moved from those a spec was fitted on: the population stability index of fields and label.

    PSI = sum over bins of (p - q) ln(p / q)          p expected, q found shares

(N. Siddiqi, Credit Risk Scorecards, Wiley 2006, ch. 10; it is Jeffreys' divergence.) Two samples of n and m values of
one distribution over B bins have (B - 1) (1/n + 1/m) by chance (B. Yurdakul and J. Naranjo, Statistical properties of
the population stability index, Journal of Risk Model Validation 14(4), 2020). The usual reading of what is left: below
0.1 little, above 0.25 a large shift.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from fieldwise.features.arrays import Int64
from fieldwise.features.errors import ArtifactError
from fieldwise.features.fields.spec import FittedField
from fieldwise.features.kernels.strings import FIRST, MISSING, UNSEEN
from fieldwise.features.schema import Strict

GROUPS = 256
"""Most groups of values a field's distribution is kept by, beside missing and unseen."""
BINS = 20
"""Bins of about equal share that the groups are joined to when two distributions are compared."""

Counts = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]


class Distribution(Strict):
    """Counts of the values of rows, coarse enough to be kept: the rows of a snapshot that training may see."""

    spec_digest: str
    label: Annotated[Counts, Field(max_length=2)]
    """Negatives (before downsampling) and positives."""
    fields: dict[str, Counts]
    """Of every field: missing, unseen, then the groups of ``group_starts``. Lists count every value."""

    def __add__(self, other: Distribution) -> Distribution:
        """Of both sets of rows. Raises ArtifactError for another spec."""
        self.require(other)
        fields = {name: _sum(counts, other.fields[name]) for name, counts in self.fields.items()}
        return Distribution(spec_digest=self.spec_digest, label=_sum(self.label, other.label), fields=fields)

    def require(self, other: Distribution) -> None:
        """Counts under two specs have no bins in common."""
        if other.spec_digest != self.spec_digest:
            raise ArtifactError(
                "drift",
                expected=f"rows encoded with feature spec {self.spec_digest[:12]}",
                found=f"spec {other.spec_digest[:12]}",
                fix="Compare with a snapshot of the same spec.",
            )


class Shift(Strict):
    """What moved between two distributions."""

    psi: Annotated[float, Field(ge=0)]
    chance: Annotated[float, Field(ge=0)]
    """What equal distributions would show, on average, in samples of these sizes."""

    @property
    def excess(self) -> float:
        """What chance does not explain; thresholds apply to this."""
        return max(0.0, self.psi - self.chance)


class Drift(Strict):
    """Rows against those expected."""

    against: str
    """Where the expected distribution was read."""
    label: Shift
    label_rate: tuple[float, float]
    """Expected, found."""
    fields: dict[str, Shift]
    """But for those of the calendar: a day has one weekday, where the rows a spec was fitted on have seven."""


def group_starts(field: FittedField) -> Int64:
    """First local index of every group: missing, unseen, then at most ``GROUPS`` ranges of values.

    Vocabularies, whose frequent values come first, are cut in ranges that grow; others in equal ones.
    """
    n = field.values
    if n <= GROUPS:
        first = np.arange(n)
    elif field.vocabulary is not None:
        first = np.unique(np.geomspace(1, n, GROUPS).astype(np.int64)) - 1
    else:
        first = np.arange(GROUPS, dtype=np.int64) * n // GROUPS
    return np.concatenate([[MISSING, UNSEEN], FIRST + first]).astype(np.int64)


def shift(expected: Sequence[int], found: Sequence[int]) -> Shift:
    """Of two counts over the same bins; half a count is added to each, so that an empty bin is no infinity."""
    sizes = np.maximum([sum(expected), sum(found)], 1)
    p, q = np.array(expected) + 0.5, np.array(found) + 0.5
    p, q = p / p.sum(), q / q.sum()
    return Shift(psi=float(((p - q) * np.log(p / q)).sum()), chance=float((len(p) - 1) * (1 / sizes).sum()))


def compare(expected: Distribution, found: Distribution, against: str, calendar: Collection[str] = ()) -> Drift:
    """Raises ArtifactError when the two are of different specs.

    Args:
        calendar: fields that follow from the date of the rows: they are not measured.
    """
    expected.require(found)
    measured = {name: counts for name, counts in expected.fields.items() if name not in calendar}
    fields = {name: shift_of_groups(counts, found.fields[name]) for name, counts in measured.items()}
    rates = tuple(of.label[1] / max(1, sum(of.label)) for of in (expected, found))
    return Drift(
        against=against, label=shift(expected.label, found.label), label_rate=(rates[0], rates[1]), fields=fields
    )


def shift_of_groups(expected: Sequence[int], found: Sequence[int]) -> Shift:
    """Of two counts over a field's groups, joined to bins of about equal share of what is expected."""
    cuts = _cuts(np.array(expected))
    return shift(_joined(expected, cuts), _joined(found, cuts))


def _cuts(counts: Int64) -> Int64:
    """First group of every bin: missing and unseen alone, then groups up to about 1 / BINS of the values."""
    values = counts[2:]
    middle = np.cumsum(values) - values / 2
    bins = np.floor(BINS * middle / max(1, values.sum()))
    first = np.flatnonzero(np.diff(bins, prepend=-1.0)) if len(values) else np.empty(0, np.int64)
    return np.concatenate([[0, 1], 2 + first]).astype(np.int64)


def _joined(counts: Sequence[int], cuts: Int64) -> list[int]:
    return [int(count) for count in np.add.reduceat(np.array(counts, np.int64), cuts)]


def _sum(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(left, right, strict=True)]
