"""The curves a run keeps: loss by epoch, reliability, ROC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from training.metrics import Metrics


def loss_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Every ``*logloss`` of the epochs."""
    figure, axes = _square("epoch", "logloss")
    for name in sorted({key for epoch in history for key in epoch if key.endswith("logloss")}):
        points = [(number + 1, epoch[name]) for number, epoch in enumerate(history) if name in epoch]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.legend()
    return figure


def calibration(metrics: Metrics) -> Figure:
    """Observed click rate against the mean prediction, in bins of equal weight."""
    figure, axes = _square("predicted", "observed")
    curve = metrics.reliability(20)
    top = max([*curve.predicted, *curve.observed, 0.0])
    axes.plot([0, top], [0, top], color="grey", linewidth=1)
    axes.plot(curve.predicted, curve.observed, marker="o")
    return figure


def roc(metrics: Metrics) -> Figure:
    """True positive rate against false positive rate."""
    figure, axes = _square("false positive rate", "true positive rate")
    false_rate, true_rate = metrics.roc()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot(false_rate, true_rate)
    return figure


def _square(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    return figure, axes
