"""Whether a challenger becomes champion: by comparisons on the same held-out rows, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fieldwise.pipelines.config.gate import GateConfig
from fieldwise.training.evaluation.paired import METRICS, Comparison, Interval


@dataclass(frozen=True)
class Ruling:
    """What the gate says."""

    decision: Literal["promote", "keep"]
    findings: list[str]
    """Why the champion stays, in words; none of a promotion."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """What was compared, for records: by comparison what `told` says."""
    reason: str = ""
    """Of a promotion: what passed."""


def decide(
    pooled: Comparison, today: Comparison, config: GateConfig, *, aged: Mapping[int, Comparison] | None = None
) -> Ruling:
    """The challenger is promoted if

    - the pooled rows are enough, in rows, in rows of either class and in groups;
    - pooled, its logloss is lower beyond the interval, or with ``margin`` surely not higher by more than that;
    - neither today nor in a slice of the pooled rows does it lose beyond the interval;
    - its calibration is not out of bounds beyond the interval;
    - nor is it worse than the champion of N days ago: beyond the interval, or with ``margin`` as above.

    Args:
        pooled: of all days since the challenger's line left the champion, ``today`` among them.
        aged: by the age in days, with the older model in the champion's place.
    """
    found = [
        *_few(pooled, config),
        *_no_gain(pooled, config),
        *_loss(today, config, "today"),
        *_slices(pooled, config),
        *_calibration(pooled, config),
    ]
    for age, comparison in (aged or {}).items():
        name = f"against the champion of {age} days ago"
        found += (_loss if config.margin is None else _no_gain)(comparison, config, name)
    named = {"pooled": pooled, "today": today} | {f"{age} days ago": each for age, each in (aged or {}).items()}
    numbers = {name: told(each, config) for name, each in named.items()}
    gap = pooled.difference("logloss", config.confidence)
    passed = "a gain beyond its interval" if gap.high < 0 else f"surely no loss of more than {config.margin or 0:.2%}"
    return Ruling("keep" if found else "promote", found, numbers, f"{passed}: {_words(pooled, gap)}")


def _few(pooled: Comparison, config: GateConfig) -> list[str]:
    classes = min(pooled.positives, pooled.rows - pooled.positives)
    counts = [
        ("rows", pooled.rows, config.min_rows),
        ("rows of the rarer class", classes, config.min_positives),
        ("groups of one size", round(pooled.groups), config.min_groups),
    ]
    return [f"too few to decide: {count:,} {what}, not {least:,}" for what, count, least in counts if count < least]


def _no_gain(pooled: Comparison, config: GateConfig, name: str = "") -> list[str]:
    gap, allowed = pooled.difference("logloss", config.confidence), _allowed(pooled, config)
    if gap.high < allowed or (config.margin is not None and gap.high == allowed):
        return []
    wanted = "no gain" if config.margin is None else f"a loss of more than {config.margin:.2%} is not ruled out"
    return [f"{name}{', ' if name else ''}{wanted}: {_words(pooled, gap)}"]


def _loss(comparison: Comparison, config: GateConfig, name: str) -> list[str]:
    gap = comparison.difference("logloss", config.confidence)
    return [f"{name}, a loss: {_words(comparison, gap)}"] if gap.low > _allowed(comparison, config) else []


def _allowed(comparison: Comparison, config: GateConfig) -> float:
    """Difference of logloss that is not a loss."""
    return 0.0 if config.margin is None else config.margin * comparison.values("logloss")[0]


def _slices(pooled: Comparison, config: GateConfig) -> list[str]:
    slices = pooled.slices(config.confidence, min_rows=config.min_rows, min_positives=config.min_positives)
    return [
        f"slice {name}, a loss of more than {config.max_slice_loss:.2%}: logloss {before:.5f}, difference {gap}"
        for name, before, gap in slices
        if gap.low > config.max_slice_loss * before
    ]


def _calibration(pooled: Comparison, config: GateConfig) -> list[str]:
    found, (least, most) = pooled.calibration(config.confidence), config.calibration
    if not (found.high < least or found.low > most):
        return []
    ends = f"{found.value:.5f} ({found.low:.5f} to {found.high:.5f})"
    return [f"calibration {ends}, not within {least} and {most}"]


def _words(comparison: Comparison, gap: Interval) -> str:
    before, after = comparison.values("logloss")
    return f"logloss {before:.5f} -> {after:.5f}, difference {gap}"


def told(comparison: Comparison, config: GateConfig) -> dict[str, Any]:
    """Rows, positives and effective groups; by metric the champion's value, the challenger's, their difference and both
    ends; slices likewise, the worst first. JSON has no infinity: what the rows leave open is None."""

    def plain(value: Any) -> float | None:
        return float(value) if math.isfinite(value) else None

    metrics = {}
    for name in METRICS:
        before, after = comparison.values(name)
        gap = comparison.difference(name, config.confidence)
        metrics[name] = {"champion": plain(before), "challenger": plain(after)} | gap.told
    slices = comparison.slices(config.confidence, min_rows=config.min_rows, min_positives=config.min_positives)
    return {
        "rows": comparison.rows,
        "positives": comparison.positives,
        "groups": round(comparison.groups, 1),
        "confidence": config.confidence,
        "metrics": metrics,
        "slices": [{"slice": name, "champion": before} | gap.told for name, before, gap in slices],
    }
