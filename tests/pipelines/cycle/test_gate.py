"""The gate: what promotes, what keeps the champion, and in which words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fieldwise.pipelines.config.gate import GateConfig
from fieldwise.pipelines.cycle.gate import decide
from fieldwise.training.evaluation.paired import BLOCKS, SLICE_BLOCKS, Comparison, Sums

DEFAULTS = GateConfig()


def day(worse: float = 0.0, *, rows: int = 2000, rate: float = 0.3, seed: int = 0, shift: float = 0.0,
        slice_shift: float = 0.0, groups: int = BLOCKS) -> Comparison:  # fmt: skip
    """Noisy champion, challenger with ``worse`` more noise (less: better); logits moved by ``shift``, on a tenth of the
    rows (slice "device = tv") by ``slice_shift``."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(np.log(rate / (1 - rate)), 0.8, rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(float)
    tv, noise = rng.random(rows) < 0.1, rng.normal(0, 1.0, rows)
    logits = (truth + noise, truth + noise * (1 + worse) + shift + tv * slice_shift)
    block = np.arange(rows) % groups
    sums = []
    for z in logits:
        columns = (np.ones(rows), y, np.ones(rows), y, np.logaddexp(0, z) - y * z, 1 / (1 + np.exp(-z)))
        table = np.stack([np.bincount(block, c, BLOCKS) for c in columns], axis=1)
        part = np.stack([np.bincount(block % SLICE_BLOCKS, c * tv, SLICE_BLOCKS) for c in columns], axis=1)
        sums.append(Sums(table, np.tile([4.0, 3.0], (BLOCKS + 1, 1)), {"device = tv": part}))
    return Comparison(*sums)


def keep(
    comparison: Comparison, today: Comparison | None = None, *, aged: Comparison | None = None, **keys: Any
) -> str:
    """The one finding that keeps the champion."""
    found = decide(comparison, today or comparison, GateConfig(**keys), aged=None if aged is None else {7: aged})
    assert found.decision == "keep"
    (finding,) = found.findings
    return finding


def test_a_better_challenger_is_promoted_with_its_numbers() -> None:
    better = day(-1, rows=8000)
    found = decide(better, better, DEFAULTS, aged={7: better})
    assert (found.decision, found.findings) == ("promote", [])
    assert found.reason.startswith("a gain beyond its interval: logloss ")
    assert json.loads(json.dumps(found.numbers, allow_nan=False)) == found.numbers
    assert list(found.numbers) == ["pooled", "today", "7 days ago"]
    pooled = found.numbers["pooled"]
    assert (pooled["rows"], pooled["positives"], pooled["confidence"]) == (8000, better.positives, 0.9995)
    assert list(pooled["metrics"]) == ["logloss", "normalized_entropy", "auc", "calibration"]
    logloss = pooled["metrics"]["logloss"]
    assert logloss["difference"] == pytest.approx(logloss["challenger"] - logloss["champion"])
    assert logloss["low"] < logloss["difference"] < logloss["high"] < 0
    assert pooled["slices"][0]["slice"] == "device = tv"


def test_equal_and_worse_ones_are_kept_back() -> None:
    assert keep(day(0)) == "no gain: logloss 0.65219 -> 0.65219, difference +0.00000 (+0.00000 to +0.00000)"
    words = "logloss 0.65219 -> 0.66058, difference +0.00839 (+0.00644 to +0.01045)"
    assert decide(day(0.05), day(0.05), DEFAULTS).findings == [f"no gain: {words}", f"today, a loss: {words}"]


def test_a_gain_of_few_rows_decides_nothing() -> None:
    assert keep(day(-1), min_rows=5000) == "too few to decide: 2,000 rows, not 5,000"
    positives = day(-1).positives
    assert keep(day(-1), min_positives=700) == f"too few to decide: {positives} rows of the rarer class, not 700"
    mostly = day(-1, rows=4000, rate=0.97)
    assert f"too few to decide: {4000 - mostly.positives} rows of the rarer class, not 700" in (
        decide(mostly, mostly, GateConfig(min_positives=700)).findings
    )
    grouped = day(-1, rows=20_000, groups=9)
    assert keep(grouped) == "too few to decide: 9 groups of one size, not 10"
    empty = Comparison(*(Sums(0 * each.table, 0 * each.pairs) for each in (day().champion, day().challenger)))
    found = decide(empty, empty, DEFAULTS)
    assert found.decision == "keep"
    assert found.findings[0] == "too few to decide: 0 rows, not 500"
    assert found.numbers["pooled"]["metrics"]["logloss"]["high"] is None


def test_days_gather_evidence_but_today_has_a_veto() -> None:
    days = [day(-0.5, rows=100, seed=seed) for seed in range(9)]
    assert {decide(each, each, DEFAULTS).decision for each in days} == {"keep"}
    pooled = days[0]
    for each in days[1:]:
        pooled += each
    assert decide(pooled, days[-1], DEFAULTS).decision == "promote"
    words = "today, a loss: logloss 0.65219 -> 0.66058, difference +0.00839 (+0.00644 to +0.01045)"
    assert keep(pooled, day(0.05)) == words


def test_a_margin_lets_pass_what_surely_loses_no_more() -> None:
    same, little = day(0), day(0.05)
    assert decide(same, same, GateConfig(margin=0.01), aged={7: same}).decision == "promote"
    passed = decide(little, little, GateConfig(margin=0.05))
    assert (passed.decision, passed.reason[:36]) == ("promote", "surely no loss of more than 5.00%: l")
    words = "logloss 0.65219 -> 0.66058, difference +0.00839 (+0.00644 to +0.01045)"
    assert keep(little, margin=0.012) == f"a loss of more than 1.20% is not ruled out: {words}"  # nor is it certain
    assert decide(little, little, GateConfig(margin=0.005)).findings[1] == f"today, a loss: {words}"


def test_small_losses_do_not_add_up() -> None:
    better, little = day(-1), day(0.05)
    words = "logloss 0.65219 -> 0.66058, difference +0.00839 (+0.00644 to +0.01045)"
    assert keep(better, aged=little) == f"against the champion of 7 days ago, a loss: {words}"
    assert keep(better, aged=little, margin=0.012) == (
        f"against the champion of 7 days ago, a loss of more than 1.20% is not ruled out: {words}"
    )
    assert decide(better, better, GateConfig(margin=0.05), aged={7: little}).decision == "promote"


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.3, []),
        (0.9, ["calibration 1.56694 (1.40887 to 1.72458), not within 0.8 and 1.25"]),
        (-0.9, ["calibration 0.52982 (0.47555 to 0.58420), not within 0.8 and 1.25"]),
    ],
)
def test_calibration_out_of_bounds(shift: float, words: list[str]) -> None:
    off = day(-1, shift=shift)
    assert [finding for finding in decide(off, off, DEFAULTS).findings if finding.startswith("calibration")] == words


def test_a_slice_that_loses() -> None:
    sunk = day(-1, rows=20_000, slice_shift=1.5)
    assert keep(sunk) == (
        "slice device = tv, a loss of more than 2.00%: logloss 0.68378, difference +0.13938 (+0.07115 to +0.19837)"
    )
    assert decide(sunk, sunk, GateConfig(max_slice_loss=0.5)).decision == "promote"
    assert decide(sunk, sunk, GateConfig(min_rows=5000)).decision == "promote"  # too few in the slice
    chance = day(-1, rows=8000, slice_shift=1.0)  # 2.8 %, but not beyond the interval
    assert decide(chance, chance, DEFAULTS).decision == "promote"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"calibration": (1.1, 1.2)}, "two bounds, one below 1 and one above"),
        ({"confidence": 1.0}, "less than 1"),
        ({"margin": 0.0}, "greater than 0"),
        ({"tolerance": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_config(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GateConfig(**keys)
