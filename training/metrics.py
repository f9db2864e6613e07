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

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from training.jit import kernel
from training.passes import logloss

Float64 = npt.NDArray[np.float64]

_BITS, _BLOCK_BITS = 20, 10
_SCALARS, _BLOCKS = 5, 1 << (_BITS - _BLOCK_BITS)


@dataclass(frozen=True)
class Curve:
    """A reliability curve: per bin the mean predicted probability, the observed rate, and the weight."""

    predicted: list[float]
    observed: list[float]
    weight: list[float]


class Metrics:
    """Collects (logits, label, weight); ``sums()`` of several collectors add up to those of all their rows."""

    def __init__(self, sums: Float64 | None = None) -> None:
        self._sums: Float64 = np.zeros(_SCALARS + _BLOCKS + (3 << _BITS)) if sums is None else sums
        self._scalars, self._blocks, bins = np.split(self._sums, [_SCALARS, _SCALARS + _BLOCKS])
        self._bins = bins.reshape(-1, 3)

    def add(
        self,
        logits: npt.NDArray[np.float32],
        label: npt.NDArray[np.float32],
        weight: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Arrays of one length. Logits must be finite."""
        self.__dict__.pop("_histogram", None)
        z = logits.astype(np.float32) + np.float32(0)  # -0.0 and 0.0 are one value
        _add(z, z.view(np.uint32), label, logits[:0] if weight is None else weight,
             self._scalars, self._blocks, self._bins)  # fmt: skip

    def sums(self) -> Float64:
        """One flat float64 array; add those of all ranks, and make the `Metrics` of all of that."""
        return self._sums

    @cached_property
    def _histogram(self) -> Float64:
        """The bins with any weight, in order of the logit: [used, 3] weight of negatives, of positives, weight * p."""
        found = np.empty((int(np.count_nonzero(self._blocks)) << _BLOCK_BITS, 3))
        return found[: _gather(self._blocks, self._bins, found)].T.copy().T  # columns contiguous

    @property
    def rows(self) -> int:
        return int(self._scalars[0])

    def values(self) -> dict[str, float]:
        """All metrics by name. What one class alone leaves undefined (AUC, normalized entropy) is nan."""
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
        negative, positive, _ = self._histogram.T
        pairs = negative.sum() * positive.sum()
        if pairs <= 0:
            return np.nan, np.nan
        below = np.cumsum(negative) - negative
        inside = positive @ negative
        return float((positive @ below + inside / 2) / pairs), float(inside / 2 / pairs)

    def reliability(self, bins: int) -> Curve:
        """At most ``bins`` groups of about equal weight, in order of the logit."""
        negative, positive_in, predicted_in = self._histogram.T
        weight = negative + positive_in
        if len(weight) == 0:
            return Curve([], [], [])
        middle = np.cumsum(weight) - weight / 2
        group = np.minimum((middle / weight.sum() * bins).astype(np.int64), bins - 1)
        total, positive, predicted = (np.bincount(group, row, bins) for row in (weight, positive_in, predicted_in))
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


@kernel
def _add(logits, bits, label, weight, scalars, blocks, bins):
    """A bin is the top bits of a monotone reading of float32: positives' sign bit, all bits of negatives flipped."""
    for i in range(len(logits)):
        y = np.float64(label[i])
        w = np.float64(weight[i]) if len(weight) else np.float64(1.0)
        loss, slope = logloss(np.float64(logits[i]), y)
        p = slope + y
        scalars[0] += 1.0
        scalars[1] += w
        scalars[2] += w * y
        scalars[3] += w * p
        scalars[4] += w * loss
        monotone = bits[i] ^ (np.uint32(0xFFFFFFFF) if bits[i] >> np.uint32(31) else np.uint32(0x80000000))
        at = np.int64(monotone >> np.uint32(32 - _BITS))
        blocks[at >> _BLOCK_BITS] += 1.0
        bins[at, 0] += w * (1.0 - y)
        bins[at, 1] += w * y
        bins[at, 2] += w * p


@kernel
def _gather(blocks, bins, found):
    """Copy the bins with any weight; returns how many."""
    used = 0
    for block in range(len(blocks)):
        if blocks[block] > 0:
            for at in range(block << _BLOCK_BITS, (block + 1) << _BLOCK_BITS):
                if bins[at, 0] + bins[at, 1] > 0:
                    found[used] = bins[at]
                    used += 1
    return used
