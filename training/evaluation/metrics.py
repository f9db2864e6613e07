"""Quality of predicted logits, in sums that ranks and chunks can add up.

With label y, weight w, logit z, p = 1 / (1 + exp(-z)), averages weighted by w:

- logloss: mean of log(1 + exp(z)) - y z
- normalized entropy: logloss / entropy of the base rate mean(y) (He et al. 2014)
- calibration: sum of p / sum of y
- AUC: share of (positive, negative) pairs in the right order, ties counting half
- ECE: mean |mean p - mean y| over bins of equal weight

AUC and the curves come from a histogram over the top 20 bits of the float32 logit (sign, exponent, 11 mantissa bits;
relative width 2^-11), so equal logits tie exactly, and pairs inside one bin count half. ``auc_resolution`` bounds what
that can cost: half the share of pairs inside one bin.

``<metric>_se`` is the standard error of a metric over samples of rows like these (rows drawn independently, with their
weights): the delta method for the ratios of sums, DeLong's variance for AUC (DeLong et al. 1988; exact up to bins where
rows are not weighted), for ECE the deviation of a sum of |gap| over bins whose gaps are normal. It says nothing of what
another training would give, and models that are compared on the same rows differ by less than their errors say.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fieldwise.features.arrays import Float64
from fieldwise.training.kernels.loss import BITS, BLOCK_BITS, add_rows, gather_bins

_SCALARS, _BLOCKS = 13, 1 << (BITS - BLOCK_BITS)
FEW = 100
"""With fewer rows of a class, metrics say little and their errors are themselves uncertain."""


@dataclass(frozen=True)
class Curve:
    """A reliability curve: per bin the mean predicted probability, the observed rate, and the weight."""

    predicted: list[float]
    observed: list[float]
    weight: list[float]


@dataclass(frozen=True)
class Scores:
    """How logits lie: shares of each class's weight in equal steps; the outer ones hold what lies beyond."""

    edges: list[float]
    """One more than steps."""
    negative: list[float]
    positive: list[float]


class Metrics:
    """Collects (logits, label, weight); ``sums()`` of several collectors add up to those of all their rows."""

    def __init__(self, sums: Float64 | None = None) -> None:
        self._sums: Float64 = np.zeros(_SCALARS + 3 * _BLOCKS + (3 << BITS)) if sums is None else sums
        self._scalars, blocks, bins = np.split(self._sums, [_SCALARS, _SCALARS + 3 * _BLOCKS])
        self._blocks, self._bins = blocks.reshape(-1, 3), bins.reshape(-1, 3)

    def add(
        self,
        logits: npt.NDArray[np.float32],
        label: npt.NDArray[np.float32],
        weight: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Arrays of one length. Logits must be finite."""
        self.__dict__.pop("_histogram", None)
        z = logits.astype(np.float32) + np.float32(0)  # -0.0 and 0.0 are one value
        add_rows(z, z.view(np.uint32), label, logits[:0] if weight is None else weight,
             self._scalars, self._blocks, self._bins)  # fmt: skip

    def sums(self) -> Float64:
        """One flat float64 array; add those of all ranks, and make the `Metrics` of all of that."""
        return self._sums

    @cached_property
    def _histogram(self) -> Float64:
        """The bins with any weight, in order of the logit: [used, 5] weight of negatives, of positives, weight * p,
        squared weight of negatives, of positives."""
        found = np.empty((int(np.count_nonzero(self._blocks[:, 0])) << BLOCK_BITS, 5))
        return found[: gather_bins(self._blocks, self._bins, found)].T.copy().T  # columns contiguous

    @property
    def rows(self) -> int:
        return int(self._scalars[0])

    @property
    def positives(self) -> int:
        """Rows, whatever they weigh."""
        return int(self._scalars[5])

    @property
    def weights(self) -> tuple[float, float]:
        """Of negatives and of positives."""
        return float(self._scalars[1] - self._scalars[2]), float(self._scalars[2])

    def by_logit(self) -> tuple[Float64, Float64, Float64]:
        """Of every bin with any weight, in order: the logit of its mean prediction, weight of negatives, positives."""
        negative, positive, predicted = self._histogram.T[:3]
        p = np.clip(predicted / (negative + positive), 1e-300, 1 - 2.0**-53)
        return np.log(p) - np.log1p(-p), negative, positive

    def values(self) -> dict[str, float]:
        """All metrics by name, each with its ``_se``. What one class alone leaves undefined (AUC, NE) is nan."""
        _, weight, positive, predicted, loss, _, ww, wwy, wwl, wwll, wwly, wwpp, wwpy = self._scalars
        found = {"auc_resolution": np.nan}
        for name in ("logloss", "auc", "normalized_entropy", "calibration", "ece"):
            found |= {name: np.nan, f"{name}_se": np.nan}
        if weight <= 0:
            return found
        mean, rate = loss / weight, positive / weight
        loss_variance = wwll - 2 * mean * wwl + mean**2 * ww  # sum of w^2 (l - mean)^2
        found |= {"logloss": mean, "logloss_se": _root(loss_variance) / weight}
        entropy = -sum(r * np.log(r) for r in (rate, 1 - rate) if r > 0)
        if entropy > 0:
            # d NE = (d mean - slope d rate) / entropy, slope = NE * d entropy / d rate
            slope = mean / entropy * np.log((1 - rate) / rate)
            both = wwly - rate * wwl - mean * wwy + mean * rate * ww  # sum of w^2 (l - mean) (y - rate)
            rate_variance = wwy - 2 * rate * wwy + rate**2 * ww
            variance = loss_variance - 2 * slope * both + slope**2 * rate_variance
            found |= {
                "normalized_entropy": mean / entropy,
                "normalized_entropy_se": _root(variance) / weight / entropy,
            }
        if positive > 0:
            ratio = predicted / positive
            variance = wwpp - 2 * ratio * wwpy + ratio**2 * wwy
            found |= {"calibration": ratio, "calibration_se": _root(variance) / positive}
        return found | self._auc() | self._ece(20)

    def _auc(self) -> dict[str, float]:
        negative, positive, _, negative_2, positive_2 = self._histogram.T
        negatives, positives = negative.sum(), positive.sum()
        if negatives * positives <= 0:
            return {}
        below = np.cumsum(negative) - negative
        inside = positive @ negative
        auc = (positive @ below + inside / 2) / (negatives * positives)
        outranks = (below + negative / 2) / negatives  # share of the negatives, by a positive of the bin
        outranked = 1 - (np.cumsum(positive) - positive / 2) / positives  # share of the positives above
        variance = positive_2 @ (outranks - auc) ** 2 / positives**2
        variance += negative_2 @ (outranked - auc) ** 2 / negatives**2
        resolution = inside / 2 / (negatives * positives)
        return {"auc": float(auc), "auc_se": _root(variance), "auc_resolution": float(resolution)}

    def _ece(self, bins: int) -> dict[str, float]:
        negative, positive, predicted, negative_2, positive_2 = self._histogram.T
        weight, group = negative + positive, self._groups(bins)
        if group is None:
            return {}
        total, gap = (np.bincount(group, row, bins) for row in (weight, predicted - positive))
        p, off = predicted / weight, (gap / np.maximum(total, 1e-300))[group]
        spread = np.bincount(group, negative_2 * (p - off) ** 2 + positive_2 * (p - 1 - off) ** 2, bins)
        sigma = np.maximum(np.sqrt(spread), 1e-300)  # of the gap; |gap| then follows a folded normal distribution
        z = np.minimum(np.abs(gap) / sigma, 1e6)
        folded = np.sqrt(2 / np.pi) * np.exp(-z * z / 2) + z * np.array([math.erf(x / math.sqrt(2)) for x in z])
        ece = np.abs(gap).sum() / total.sum()
        within = (sigma**2 * np.clip(1 + z * z - folded**2, 0, 1)).sum()
        between = (negative_2 + positive_2) @ (np.abs(off) - ece) ** 2  # how many rows fall into which group
        return {"ece": float(ece), "ece_se": _root(within + between) / float(total.sum())}

    def _groups(self, bins: int) -> npt.NDArray[np.int64] | None:
        """Of each bin of the histogram, in groups of about equal weight; None without any."""
        weight = self._histogram[:, 0] + self._histogram[:, 1]
        if len(weight) == 0:
            return None
        middle = np.cumsum(weight) - weight / 2
        return np.minimum((middle / weight.sum() * bins).astype(np.int64), bins - 1)

    def reliability(self, bins: int) -> Curve:
        """At most ``bins`` groups of about equal weight, in order of the logit."""
        negative, positive_in, predicted_in = self._histogram.T[:3]
        group = self._groups(bins)
        if group is None:
            return Curve([], [], [])
        total, positive, predicted = (
            np.bincount(group, row, bins) for row in (negative + positive_in, positive_in, predicted_in)
        )
        kept = total > 0
        mean_predicted, mean_observed = (row[kept] / total[kept] for row in (predicted, positive))
        return Curve(mean_predicted.tolist(), mean_observed.tolist(), total[kept].tolist())

    def roc(self, points: int = 200) -> tuple[list[float], list[float]]:
        """(false positive rates, true positive rates) at about ``points`` thresholds, from (0, 0) to (1, 1)."""
        down = self._histogram[::-1, :2].T
        rates = [np.concatenate([[0.0], np.cumsum(row) / max(row.sum(), 1e-300)]) for row in down]
        travelled = rates[0] + rates[1]  # equal steps along the curve, not in the logit
        kept = np.unique(np.searchsorted(travelled, np.linspace(0.0, travelled[-1], points)))
        return rates[0][kept].tolist(), rates[1][kept].tolist()

    def precision_recall(self, points: int = 200) -> tuple[list[float], list[float]]:
        """(recall, precision) at about ``points`` thresholds, the highest first; empty without positives."""
        negative, positive = (np.cumsum(row) for row in self._histogram[::-1, :2].T)
        if len(positive) == 0 or positive[-1] <= 0:
            return [], []
        recall = positive / positive[-1]
        kept = np.unique(np.searchsorted(recall, np.linspace(recall[0], 1.0, points)).clip(max=len(recall) - 1))
        return recall[kept].tolist(), (positive[kept] / (positive[kept] + negative[kept])).tolist()

    def scores(self, steps: int = 40) -> Scores:
        """Between the logits past which a thousandth of the weight lies on either side."""
        logit, negative, positive = self.by_logit()
        running = np.cumsum(negative + positive)
        if len(logit) == 0:
            return Scores([], [], [])
        low, high = (float(logit[np.searchsorted(running, share * running[-1])]) for share in (0.001, 0.999))
        edges = np.linspace(low, max(high, low + 1e-6), steps + 1)
        at = np.clip(np.searchsorted(edges, logit, "right") - 1, 0, steps - 1)
        shares = [np.bincount(at, row, steps) / max(row.sum(), 1e-300) for row in (negative, positive)]
        return Scores(edges.tolist(), *(share.tolist() for share in shares))


def _root(variance: float) -> float:
    """Of a variance that rounding may leave below zero."""
    return math.sqrt(max(variance, 0.0))
