"""The curves a run keeps: loss by epoch, reliability, ROC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from training.metrics import Curve
from training.run import EpochRecord


def loss_curves(history: Sequence[EpochRecord]) -> Figure:
    """Progressive training loss and validation loss of every epoch."""
    figure, axes = _square("epoch", "logloss")
    epochs = [record.epoch + 1 for record in history]
    axes.plot(epochs, [record.train_logloss for record in history], marker="o", label="train (progressive)")
    if all("logloss" in record.valid for record in history):
        axes.plot(epochs, [record.valid["logloss"] for record in history], marker="o", label="valid")
    axes.legend()
    return figure


def calibration(curve: Curve) -> Figure:
    """Observed click rate against the mean prediction, in bins of equal weight."""
    figure, axes = _square("predicted", "observed")
    top = max([*curve.predicted, *curve.observed, 0.0])
    axes.plot([0, top], [0, top], color="grey", linewidth=1)
    axes.plot(curve.predicted, curve.observed, marker="o")
    return figure


def roc(rates: tuple[list[float], list[float]]) -> Figure:
    """True positive rate against false positive rate."""
    figure, axes = _square("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot(*rates)
    return figure


def _square(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    return figure, axes
