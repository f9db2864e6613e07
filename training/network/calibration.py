"""From a model's logit to a calibrated one; what a bundle keeps of it.

    z' = g(z + logit_shift),   calibrated probability = 1 / (1 + exp(-z'))

``logit_shift`` undoes negative downsampling. g, the calibrator, is fitted on validation rows
(``training.evaluation.calibrate``) where the config's ``training.calibration`` asks for one; else g(z) = z.

No g reorders: a larger logit never gets a smaller probability. Isotonic regression makes equal ones of different
logits, so whoever sorts (the lists of a catalog) sorts by the logit itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from fieldwise.features.arrays import Float32, Float64
from fieldwise.features.schema import Strict

Finite = Annotated[float, Field(allow_inf_nan=False)]
Knot = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]
"""Far beyond float32's logits, and near enough that the difference of two is finite: else g would be nan."""


class Platt(Strict):
    """g(z) = slope z + intercept (Platt, Probabilistic outputs for support vector machines, 1999)."""

    method: Literal["platt"] = "platt"
    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    intercept: Finite

    def __call__(self, z: Float64) -> Float64:
        return self.slope * z + self.intercept


class Isotonic(Strict):
    """g(z) linear between knots, constant beyond the first and the last one (Zadrozny & Elkan, KDD 2002)."""

    method: Literal["isotonic"] = "isotonic"
    logits: Annotated[list[Knot], Field(min_length=1)]
    """Of the knots, ascending."""
    calibrated: list[Knot]
    """g of each, never descending."""

    @model_validator(mode="after")
    def _ordered(self) -> Isotonic:
        x, y = self.logits, self.calibrated
        if len(x) != len(y) or sorted(set(x)) != x or sorted(y) != y:
            raise ValueError("as many calibrated logits as logits, ascending ones")
        return self

    def __call__(self, z: Float64) -> Float64:
        x, y = np.array(self.logits), np.array(self.calibrated)
        above = y[np.minimum(np.searchsorted(x, z, side="right"), len(y) - 1)]
        return np.minimum(np.interp(z, x, y), above)  # which interpolation may pass by its rounding


Calibrator = Annotated[Platt | Isotonic, Field(discriminator="method")]


class Calibration(Strict):
    """As model.json has it."""

    logit_shift: Finite = 0.0
    """log of the share of negatives the model was trained on; 0 when that was all."""
    calibrator: Calibrator | None = None
    """Left out where there is none."""


def measured_logits(
    logits: Float32, logit_shift: float, calibrator: Platt | Isotonic | None, *, downsampled: bool
) -> Float32:
    """Calibrated logits of rows whose labels they are compared with.

    Args:
        downsampled: rows whose negatives were downsampled are measured without the shift, which is what turns their
            rate into the true one.
    """
    if calibrator is None:
        return logits + np.float32(0.0 if downsampled else logit_shift)
    z = calibrator(logits.astype(np.float64) + logit_shift)
    return (z - logit_shift if downsampled else z).astype(np.float32)
