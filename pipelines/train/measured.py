"""Metrics for people: each with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldwise.features.terminal import say, warn
from fieldwise.training.evaluation.apart import Slice
from fieldwise.training.evaluation.evaluate import Evaluation

NAMES = {"logloss": "logloss", "auc": "AUC", "normalized_entropy": "NE", "calibration": "calibr.", "ece": "ECE"}
"""Metrics that are shown, and what tables call them."""
TABLE = ("logloss", "auc", "normalized_entropy", "calibration")
"""Those of tables, which a terminal has room for."""
GROUPED = {"group_auc": "AUC", "group_ndcg": "NDCG"}
_SLICES = 20
"""That are shown."""


def with_error(values: Mapping[str, Any], name: str) -> str:
    """``0.46475 +- 0.00191``"""
    return f"{values[name]:.5f} +- {values[f'{name}_se']:.5f}"


def say_metrics(found: Mapping[str, Evaluation]) -> None:
    """A line of a table for each role, and a warning where a class of one has few rows."""
    say("         " + "rows".rjust(12) + "positives".rjust(12) + "".join(f"  {NAMES[name]:<18}" for name in TABLE))
    for role, each in found.items():
        shown = "".join(f"  {with_error(each.values, name):<18}" for name in TABLE)
        say(f"  {role:<7}{each.rows:>12,}{each.positives:>12,}{shown}".rstrip())
    for role, each in found.items():
        if each.few:
            warn(f"{role} has {each.few}")


def say_group(found: Mapping[str, Any]) -> None:
    """Ranking within groups, one line."""
    shown = ", ".join(f"{word} {with_error(found, name)}" for name, word in GROUPED.items())
    say(f"  within {found['groups']:,.0f} groups of {found['field']} ({found['grouped']:.1%} of the rows): {shown}")


def say_slices(slices: Sequence[Slice]) -> None:
    """A line each, the worst first."""
    width = max([5, *(len(each.name) for each in slices[:_SLICES])])
    say(f"  {'slice'.ljust(width)}        rows    rate  logloss       NE  calibration")
    for each in slices[:_SLICES]:
        entropy, ratio = (
            "-" if value is None else f"{value:.5f}" for value in (each.normalized_entropy, each.calibration)
        )
        ends = "" if each.low is None or each.high is None else f" ({each.low:.3f} to {each.high:.3f})"
        numbers = f"{each.rows:>10,}  {each.label_rate:6.2%}  {each.logloss:.5f}  {entropy:>7}  {ratio}{ends}"
        say(f"  {each.name.ljust(width)}  {numbers}")
    if len(slices) > _SLICES:
        say(f"  and {len(slices) - _SLICES:,} more in the result")
