"""What a model's logits follow from, over many rows: the share of every field and every pair of fields.

With z = bias + sum over parts p of z_p(row), where a part is a field or a pair of fields (`Scorer.parts`),

    share of p = cov(z_p, z) / var(z)

over the rows: shares add up to 1, whatever the parts' own correlations. A part that works against the others has a
negative share. A field's ``share`` is that of its own part and half of each of its pairs, so fields add up to 1, too.

``hidden`` is what the logloss rises by where a field is padding in every row, nothing trained anew: of any model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fieldwise.features.arrays import Float32, Float64, Int32
from fieldwise.training.scoring.scorer import Scorer

_SCORINGS = 200_000
"""Masked rows that are scored at most: the time it may take."""
_ROUNDING = 1e-12
"""Of the absolute parts of a logit: logits that differ by less are equal."""
FEWEST, MOST = 200, 4096
"""Rows."""


@dataclass(frozen=True)
class Importance:
    """Over ``rows`` rows; ``alone`` [F] and ``pairs`` [F, F] (above the diagonal) are None for a model that is no sum
    over fields and pairs of fields, or whose logits are all equal."""

    rows: int
    mean: float
    """Of the logits."""
    variance: float
    hidden: Float64
    """[F]"""
    alone: Float64 | None = None
    pairs: Float64 | None = None

    @property
    def fields(self) -> Float64 | None:
        """[F]: shares that add up to 1."""
        if self.alone is None or self.pairs is None:
            return None
        share: Float64 = self.alone + (self.pairs.sum(0) + self.pairs.sum(1)) / 2
        return share

    @property
    def strongest(self) -> list[tuple[int, int]]:
        """Pairs of fields, the largest share first."""
        if self.pairs is None:
            return []
        above = np.triu_indices(len(self.pairs), 1)
        order = np.argsort(-self.pairs[above], kind="stable")
        return [(int(above[0][at]), int(above[1][at])) for at in order]


def rows_for(fields: int, pairwise: bool) -> int:
    """How many rows to look at: as many as time allows, and enough for shares that mean something."""
    parts = fields + (1 + fields * (fields + 1) // 2 if pairwise else 0)
    return min(MOST, max(FEWEST, _SCORINGS // parts))


def importance(scorer: Scorer, slots: Int32, label: Float32, weight: Float32 | None = None) -> Importance:
    """Of slots [n, S] with their labels [n], in 0 and 1, and weights [n]."""
    fields = scorer.layout.fields
    w = np.ones(len(label)) if weight is None else weight.astype(np.float64)
    w /= w.sum()
    y = label.astype(np.float64)

    def loss(of: Int32) -> float:
        z = scorer.calibrated_logits(scorer.logits(of))
        return float(w @ (np.logaddexp(0.0, z) - y * z))

    whole = loss(slots)
    hidden = np.empty(fields)
    for f in range(fields):
        masked = slots.copy()
        masked[:, scorer.layout.field_of_slot == f] = 0
        hidden[f] = loss(masked) - whole
    if not scorer.model.kind.pairwise:
        z = scorer.logits(slots).astype(np.float64)
        return Importance(len(y), float(w @ z), float(w @ (z - w @ z) ** 2), hidden)
    which, parts = scorer.parts(slots)
    z = parts.sum(1)
    mean = float(w @ z)
    variance = float(w @ (z - mean) ** 2)
    if variance <= (_ROUNDING * float(np.abs(parts).sum(1).max())) ** 2:
        return Importance(len(y), mean, 0.0, hidden)
    shares = ((w * (z - mean)) @ (parts - w @ parts)) / variance
    alone, pairs = np.zeros(fields), np.zeros((fields, fields))
    for part, share in zip(which, shares, strict=True):
        if len(part) == 1:
            alone[part[0]] = share
        elif len(part) == 2:
            pairs[part[0], part[1]] = share
    return Importance(len(y), mean, variance, hidden, alone, pairs)
