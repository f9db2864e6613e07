"""What runs and sweeps keep: loss by epoch, reliability, ROC, trials across their settings."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from fieldwise.features.terminal import printable
from fieldwise.training.evaluation.metrics import Curve
from fieldwise.training.loop.progress import EpochRecord


def loss_curves(history: Sequence[EpochRecord]) -> Figure:
    """Progressive training loss and validation loss of every epoch."""
    figure, axes = _square("Learning curves", "epoch", "logloss")
    epochs = [record.epoch + 1 for record in history]
    axes.plot(epochs, [record.train_logloss for record in history], marker="o", label="train (progressive)")
    if all("logloss" in record.valid for record in history):
        axes.plot(epochs, [record.valid["logloss"] for record in history], marker="o", label="valid")
    axes.legend()
    return figure


def calibration(curve: Curve) -> Figure:
    """Observed click rate against the mean prediction, in bins of equal weight."""
    figure, axes = _square("Reliability", "predicted", "observed")
    top = max([*curve.predicted, *curve.observed, 0.0])
    axes.plot([0, top], [0, top], color="grey", linewidth=1)
    axes.plot(curve.predicted, curve.observed, marker="o")
    return figure


def roc(rates: tuple[list[float], list[float]]) -> Figure:
    """True positive rate against false positive rate."""
    figure, axes = _square("ROC", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot(*rates)
    return figure


def ageing(x: Sequence[float], y: Sequence[float], error: Sequence[float], start: float, slope: float) -> Figure:
    """Normalized entropy by a model's age in days, two standard errors each, and the line through it."""
    figure, axes = _square("Ageing", "age in days", "normalized entropy")
    axes.errorbar(x, y, [2 * each for each in error], marker="o", linestyle="none")
    ends = [0, max(x)]
    axes.plot(ends, [start + slope * end for end in ends], color="grey", linewidth=1)
    return figure


def _square(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5, 5))
    axes = figure.add_axes(
        (0.16, 0.11, 0.81, 0.82), title=title, xlabel=x, ylabel=y
    )  # a layout engine takes as long as drawing
    return figure, axes


def parallel_coordinates(columns: Mapping[str, Sequence[Any]], value: str, logarithmic: Collection[str] = ()) -> Figure:
    """A line per trial across one axis per column, dark for a low ``value`` (one of the columns), the lowest in red.

    Columns hold finite numbers, placed linearly or (``logarithmic``) by their logarithm, or texts.
    """
    heights = {name: _heights(values, name in logarithmic) for name, values in columns.items()}
    figure = Figure(figsize=(1.6 * len(columns) + 1, 5), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.2, len(columns) - 0.6), ylim=(-0.05, 1.05))
    order = sorted(range(len(columns[value])), key=lambda trial: columns[value][trial], reverse=True)
    for place, trial in enumerate(order):
        best = place == len(order) - 1
        shade = str(0.85 - 0.75 * place / max(1, len(order) - 1))
        line = [height[trial] for height in heights.values()]
        axes.plot(line, color="red" if best else shade, linewidth=2.0 if best else 0.8)
    for x, (name, values) in enumerate(columns.items()):
        axes.axvline(x, color="black", linewidth=0.8)
        shown = dict(zip(heights[name], values, strict=True))
        for height in sorted(shown) if isinstance(values[0], str) else {min(shown), max(shown)}:
            text = shown[height] if isinstance(shown[height], str) else f"{shown[height]:.4g}"
            offset: dict[str, Any] = {"xytext": (4, 4), "textcoords": "offset points"}
            axes.annotate(printable(text), (x, height), **offset, fontsize=8, parse_math=False)
    axes.set_xticks(range(len(columns)), map(printable, columns), parse_math=False)
    axes.set_yticks([])
    return figure


def _heights(values: Sequence[Any], logarithmic: bool) -> list[float]:
    """Places in [0, 1] on an axis from the lowest value to the highest; 0.5 where all are equal."""
    if isinstance(values[0], str):
        names = sorted(set(values))
        values = [float(names.index(value)) for value in values]
    placed = [math.log(value) for value in values] if logarithmic else [float(value) for value in values]
    low, high = min(placed), max(placed)
    return [(value - low) / (high - low) if high > low else 0.5 for value in placed]
