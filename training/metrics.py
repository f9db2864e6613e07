"""Quality of predicted logits, in sums that ranks and chunks can add up.

With label y, weight w, logit z, p = 1 / (1 + exp(-z)), averages weighted by w:

- logloss: mean of log(1 + exp(z)) - y z
- normalized entropy: logloss / entropy of the base rate mean(y) (He et al. 2014)
- calibration: sum of p / sum of y
- AUC: share of (positive, negative) pairs in the right order, ties counting half
- ECE: mean |mean p - mean y| over bins of equal weight

AUC and the curves come from a histogram over the top 20 bits of the float32 logit (sign, exponent, 11 mantissa bits;
relative width 2^-11), so equal logits tie exactly, and pairs inside one bin count half. ``auc_error`` bounds what that
can cost: half the share of pairs inside one bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

_BITS = 20
_ROWS_BEFORE_COUNTING = 1 << 19  # a histogram over 2^20 bins is worth making for many rows at once


@dataclass(frozen=True)
class Curve:
    """A reliability curve: per bin the mean predicted probability, the observed rate, and the weight."""

    predicted: list[float]
    observed: list[float]
    weight: list[float]


class Metrics:
    """Collects (logits, label, weight); ``sums()`` of several collectors add up to those of all their rows."""

    def __init__(self) -> None:
        self._scalars = np.zeros(5)  # rows, weight, weight * y, weight * p, weight * loss
        self._bins = np.zeros((3, 1 << _BITS))  # weight of negatives, of positives, weight * p
        self._waiting: list[tuple[npt.NDArray[np.float32], Float64, Float64]] = []
        self._waiting_rows = 0

    def add(
        self,
        logits: npt.NDArray[np.float32],
        label: npt.NDArray[np.float32],
        weight: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Arrays of one length. Logits must be finite."""
        z, y = logits.astype(np.float64), label.astype(np.float64)
        w = np.ones(len(z)) if weight is None else weight.astype(np.float64)
        loss = np.logaddexp(0.0, z) - y * z
        p = 1.0 / (1.0 + np.exp(-z))
        self._scalars += [len(z), w.sum(), w @ y, w @ p, w @ loss]
        self._waiting.append((logits.astype(np.float32), y, w))
        self._waiting_rows += len(z)
        if self._waiting_rows >= _ROWS_BEFORE_COUNTING:
            self._count()

    def _count(self) -> None:
        if not self._waiting:
            return
        logits, y, w = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_rows = [], 0
        key = _bin_of(logits)
        p = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        for row, value in enumerate((w * (1 - y), w * y, w * p)):
            self._bins[row] += np.bincount(key, value, 1 << _BITS)

    def sums(self) -> Float64:
        """One flat float64 array; add those of all ranks, then ``from_sums``."""
        self._count()
        return np.concatenate([self._scalars, self._bins.ravel()])

    @classmethod
    def from_sums(cls, sums: Float64) -> Metrics:
        metrics = cls()
        metrics._scalars = sums[:5].copy()
        metrics._bins = sums[5:].reshape(3, -1).copy()
        return metrics

    @property
    def rows(self) -> int:
        return int(self._scalars[0])

    def values(self) -> dict[str, float]:
        """All metrics by name. What one class alone leaves undefined (AUC, normalized entropy) is nan."""
        self._count()
        _, weight, positive, predicted, loss = self._scalars
        if weight <= 0:
            return dict.fromkeys(("logloss", "auc", "auc_error", "normalized_entropy", "calibration", "ece"), np.nan)
        rate = positive / weight
        entropy = -sum(r * np.log(r) for r in (rate, 1 - rate) if r > 0)
        auc, error = self._auc()
        curve = self.reliability(20)
        gap = np.abs(np.subtract(curve.predicted, curve.observed)) @ np.asarray(curve.weight)
        return {
            "logloss": loss / weight,
            "auc": auc,
            "auc_error": error,
            "normalized_entropy": loss / weight / entropy if entropy > 0 else np.nan,
            "calibration": predicted / positive if positive > 0 else np.nan,
            "ece": gap / weight,
        }

    def _auc(self) -> tuple[float, float]:
        negative, positive, _ = self._bins
        pairs = negative.sum() * positive.sum()
        if pairs <= 0:
            return np.nan, np.nan
        below = np.cumsum(negative) - negative
        inside = positive @ negative
        return float((positive @ below + inside / 2) / pairs), float(inside / 2 / pairs)

    def reliability(self, bins: int) -> Curve:
        """At most ``bins`` groups of about equal weight, in order of the logit."""
        self._count()
        weight = self._bins[0] + self._bins[1]
        used = np.flatnonzero(weight)
        if len(used) == 0:
            return Curve([], [], [])
        middle = np.cumsum(weight[used]) - weight[used] / 2
        group = np.minimum((middle / weight.sum() * bins).astype(np.int64), bins - 1)
        total, positive, predicted = (
            np.bincount(group, row[used], bins) for row in (weight, self._bins[1], self._bins[2])
        )
        kept = total > 0
        mean_predicted, mean_observed = (row[kept] / total[kept] for row in (predicted, positive))
        return Curve(mean_predicted.tolist(), mean_observed.tolist(), total[kept].tolist())

    def roc(self, points: int = 200) -> tuple[list[float], list[float]]:
        """(false positive rates, true positive rates) at about ``points`` thresholds, from (0, 0) to (1, 1)."""
        self._count()
        used = np.flatnonzero(self._bins[0] + self._bins[1])[::-1]
        rates = [np.concatenate([[0.0], np.cumsum(row[used]) / max(row.sum(), 1e-300)]) for row in self._bins[:2]]
        travelled = rates[0] + rates[1]  # equal steps along the curve, not in the logit
        kept = np.unique(np.searchsorted(travelled, np.linspace(0.0, travelled[-1], points)))
        return rates[0][kept].tolist(), rates[1][kept].tolist()


def _bin_of(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The top bits of a monotone reading of float32: flip the sign bit of positives, all bits of negatives."""
    bits = (logits + np.float32(0)).view(np.uint32)  # + 0: -0.0 and 0.0 are one value
    monotone = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (monotone >> np.uint32(32 - _BITS)).astype(np.int64)
