"""Metrics against scikit-learn, and their sums against the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from fieldwise.training.evaluation.metrics import Metrics


def sample(rows: int, seed: int, spread: float, weighted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, spread, rows).astype(np.float32)
    label = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    label[:2] = 0, 1
    return logits, label, rng.exponential(1, rows).astype(np.float32) if weighted else None


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 400), st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 30.0]), st.booleans())
def test_equals_scikit_learn(rows: int, seed: int, spread: float, weighted: bool) -> None:
    logits, label, weight = sample(rows, seed, spread, weighted)
    metrics = Metrics()
    metrics.add(logits, label, weight)
    values = metrics.values()
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    w = np.ones(rows) if weight is None else weight.astype(np.float64)
    plain = -np.where(label == 1, -np.logaddexp(0, -logits.astype(float)), -np.logaddexp(0, logits.astype(float)))
    assert values["logloss"] == pytest.approx((w * plain).sum() / w.sum(), rel=1e-9)
    assert values["auc"] == pytest.approx(
        roc_auc_score(label, logits, sample_weight=weight), abs=values["auc_resolution"] + 1e-9
    )
    rate = (w @ label) / w.sum()
    base = log_loss(label, np.full(rows, rate), sample_weight=weight)
    assert values["normalized_entropy"] == pytest.approx(values["logloss"] / base, rel=1e-6)
    assert values["calibration"] == pytest.approx((w @ p) / (w @ label), rel=1e-6)


NAMES = ("logloss", "auc", "normalized_entropy", "calibration", "ece")


def measured(logits: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
    metrics = Metrics()
    metrics.add(logits, label, weight)
    return metrics.values()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_standard_errors_are_those_of_the_bootstrap(weighted: bool, shift: float) -> None:
    logits, label, weight = sample(4000, 3, 1.2, weighted)
    logits = logits + np.float32(shift)
    values, rng = measured(logits, label, weight), np.random.default_rng(8)
    drawn = [rng.integers(0, 4000, 4000) for _ in range(300)]
    again = [measured(logits[rows], label[rows], None if weight is None else weight[rows]) for rows in drawn]
    for name in NAMES:
        error = np.std([found[name] for found in again])
        assert values[f"{name}_se"] == pytest.approx(error, rel=0.15), name  # a bootstrap of 300 is exact to 4 %


def test_intervals_of_two_standard_errors_hold_the_truth() -> None:
    """95.4 in 100 samples, by the truth that 400,000 rows tell."""
    truth = measured(*sample(400_000, 99, 1.2, False))
    inside = dict.fromkeys(NAMES[:4], 0)
    for seed in range(200):
        values = measured(*sample(2000, seed, 1.2, False))
        for name in inside:
            inside[name] += abs(values[name] - truth[name]) < 2 * values[f"{name}_se"]
    assert all(180 <= n <= 198 for n in inside.values()), inside


def test_auc_error_is_delongs() -> None:
    """Brute force: the variance of placements within both classes (DeLong et al. 1988)."""
    logits = np.array([0.1, 0.2, 0.2, 0.5, 0.7, 0.9, 1.1], np.float32)
    label = np.array([0, 0, 1, 0, 1, 0, 1], np.float32)
    high, low = logits[label == 1], logits[label == 0]
    wins = (high[:, None] > low).astype(float) + 0.5 * (high[:, None] == low)
    variance = wins.mean(1).var() / len(high) + wins.mean(0).var() / len(low)
    values = measured(logits, label, None)
    assert values["auc"] == pytest.approx(wins.mean())
    assert values["auc_se"] == pytest.approx(np.sqrt(variance))
    assert measured(logits, label, np.full(7, 3, np.float32))["auc_se"] == pytest.approx(np.sqrt(variance))


def test_auc_is_precise_where_logits_lie_close() -> None:
    logits, label, _ = sample(200_000, 5, 0.5, False)
    metrics = Metrics()
    metrics.add(logits, label)
    values = metrics.values()
    assert values["auc_resolution"] < 1e-3
    assert values["auc"] == pytest.approx(roc_auc_score(label, logits), abs=2e-5)


def test_ties_count_half_and_signs_order() -> None:
    metrics = Metrics()
    metrics.add(np.array([0.0, -0.0, 0.0], np.float32), np.array([1, 0, 1], np.float32))
    assert metrics.values()["auc"] == 0.5
    metrics = Metrics()
    metrics.add(np.array([-5.0, -1e-30, 1e-30, 5.0], np.float32), np.array([0, 0, 1, 1], np.float32))
    assert metrics.values()["auc"] == 1.0
    assert metrics.values()["auc_resolution"] == 0.0


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.booleans())
def test_sums_of_parts_are_those_of_the_whole(sizes: list[int], weighted: bool) -> None:
    logits, label, weight = sample(sum(sizes) + 2, 9, 1.0, weighted)
    whole = Metrics()
    whole.add(logits, label, weight)
    total = np.zeros_like(whole.sums())
    bounds = np.cumsum([0, *sizes, 2])
    for a, b in pairwise(bounds):
        part = Metrics()
        part.add(logits[a:b], label[a:b], None if weight is None else weight[a:b])
        total += part.sums()
    merged = Metrics(total)
    assert merged.rows == whole.rows
    for name, value in whole.values().items():
        assert merged.values()[name] == pytest.approx(value, rel=1e-9, nan_ok=True), name


def test_reliability_of_a_calibrated_and_of_a_shifted_model() -> None:
    logits, label, _ = sample(100_000, 2, 1.5, False)
    honest, shifted = Metrics(), Metrics()
    honest.add(logits, label)
    shifted.add(logits + np.float32(1), label)
    assert honest.values()["ece"] < 0.005
    assert shifted.values()["ece"] > 0.08
    curve = honest.reliability(10)
    assert len(curve.weight) == 10
    assert sum(curve.weight) == 100_000
    assert max(curve.weight) < 1.01 * min(curve.weight)
    assert curve.predicted == sorted(curve.predicted)
    np.testing.assert_allclose(curve.predicted, curve.observed, atol=0.02)


def test_one_class_or_nothing_leaves_metrics_undefined() -> None:
    assert all(np.isnan(value) for value in Metrics().values().values())
    metrics = Metrics()
    metrics.add(np.zeros(3, np.float32), np.zeros(3, np.float32))
    values = metrics.values()
    assert values["logloss"] == pytest.approx(np.log(2))
    assert np.isnan(values["auc"])
    assert np.isnan(values["normalized_entropy"])


@pytest.mark.parametrize("weighted", [False, True])
def test_precision_by_recall(weighted: bool) -> None:
    """The points are thresholds of the rows: what stands above each, counted anew."""
    logits, label, weight = sample(3000, 4, 1.0, weighted)
    metrics = Metrics()
    metrics.add(logits, label, weight)
    recall, precision = metrics.precision_recall(50)
    w = np.ones(3000) if weight is None else weight.astype(np.float64)
    assert recall == sorted(recall)
    assert recall[-1] == 1
    assert precision[-1] == pytest.approx((w @ label)[()] / w[logits >= logits[label == 1].min()].sum(), rel=1e-2)
    order = np.argsort(-logits, kind="stable")
    caught = np.cumsum((w * label)[order]) / (w @ label)
    right = np.cumsum((w * label)[order]) / np.cumsum(w[order])
    for r, p in zip(recall[5:], precision[5:], strict=True):
        at = np.searchsorted(caught, r - 1e-12)
        assert right[at] == pytest.approx(p, abs=0.03)
    assert Metrics().precision_recall() == ([], [])


def test_scores_by_class_hold_all_of_each() -> None:
    logits, label, weight = sample(5000, 4, 1.0, True)
    metrics = Metrics()
    metrics.add(logits, label, weight)
    scores = metrics.scores(20)
    assert len(scores.edges) == 21
    assert sum(scores.negative) == pytest.approx(1)
    assert sum(scores.positive) == pytest.approx(1)
    assert weight is not None
    middle = (np.array(scores.edges[10]) <= logits) & (label == 1)
    assert sum(scores.positive[10:]) == pytest.approx(weight[middle].sum() / weight[label == 1].sum(), abs=0.01)
    assert Metrics().scores().edges == []
    one = Metrics()
    one.add(np.zeros(5, np.float32), np.array([0, 1, 0, 1, 1], np.float32))
    assert sum(one.scores().positive) == pytest.approx(1)
