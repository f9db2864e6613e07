"""Metrics for people: each with its standard error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fieldwise.features.terminal import say
from fieldwise.training.evaluation.evaluate import Evaluation

NAMES = {"logloss": "logloss", "auc": "AUC", "normalized_entropy": "NE", "calibration": "calibr.", "ece": "ECE"}
"""Metrics that are shown, and what tables call them."""


def with_error(values: Mapping[str, Any], name: str) -> str:
    """``0.46475 +- 0.00191``"""
    return f"{values[name]:.5f} +- {values[f'{name}_se']:.5f}"


def say_metrics(role: str, found: Evaluation) -> None:
    """One line, and a warning where a class has few rows."""
    shown = ", ".join(f"{word} {with_error(found.values, name)}" for name, word in NAMES.items())
    say(f"{role}: {found.rows:,} rows, {found.positives:,} positive: {shown}")
    if found.few:
        say(f"  warning: {role} has {found.few}")
