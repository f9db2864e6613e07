"""Fit a calibrator to the logits and labels of validation rows, as `Metrics` has collected them from all ranks.

Both methods see a bin of logits (relative width 2^-11, see ``training.evaluation.metrics``) as one value, the logit of
its mean prediction, with its weights of positives and negatives.

    platt     maximum likelihood of g(z) = slope z + intercept against Platt's targets (P + 1) / (P + 2) and 1 / (N + 2)
              for P positives and N negatives, so that no slope is infinite
    isotonic  pool adjacent violators, with one positive added at the lowest logit and one negative at the highest, so
              that no probability is 0 or 1: a single row would make the logloss infinite
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fieldwise.features.arrays import Float64
from fieldwise.training.evaluation.metrics import Metrics
from fieldwise.training.network.calibration import Isotonic, Platt

MOST_KNOTS = 2000
"""Of isotonic regression: model.json stays small. With more, some of the knots in between are left out."""


def fit_calibrator(method: Literal["isotonic", "platt"], rows: Metrics) -> Isotonic | Platt | None:
    """The calibrator of rows with both classes; None where a larger logit does not mean more positives (``platt``)."""
    logit, negative, positive = rows.by_logit()
    one = (negative.sum() + positive.sum()) / rows.rows  # row, in weight
    if method == "isotonic":
        return _isotonic(logit, negative, positive, one)
    return _platt(logit, negative, positive, one)


def _isotonic(logit: Float64, negative: Float64, positive: Float64, one: float) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression  # takes a second to import

    positive, negative = positive.copy(), negative.copy()
    positive[0] += one
    negative[-1] += one
    weight = negative + positive
    fitted = IsotonicRegression(out_of_bounds="clip").fit(logit, positive / weight, sample_weight=weight)
    x, p = fitted.X_thresholds_, fitted.y_thresholds_
    y = np.maximum.accumulate(np.log(p) - np.log1p(-p))  # rounding
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_KNOTS)).round().astype(int))
    return Isotonic(logits=x[kept].tolist(), calibrated=y[kept].tolist())


def _platt(logit: Float64, negative: Float64, positive: Float64, one: float) -> Platt | None:
    from sklearn.linear_model import LogisticRegression

    high = (positive.sum() + one) / (positive.sum() + 2 * one)
    low = one / (negative.sum() + 2 * one)
    ones = positive * high + negative * low
    zeros = positive + negative - ones
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(
        np.concatenate([logit, logit])[:, None],
        np.repeat([1, 0], len(logit)),
        sample_weight=np.concatenate([ones, zeros]),
    )
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Platt(slope=slope, intercept=intercept) if slope > 0 else None
