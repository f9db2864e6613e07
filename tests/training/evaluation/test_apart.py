"""Ranking within groups and slices: in closed form, and against plain loops and scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from fieldwise.features.errors import ConfigError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.data.batch import Batch
from fieldwise.training.evaluation.apart import Groups, Slices, grouped
from fieldwise.training.evaluation.cuts import Columns
from tests.snapshots import hash_spec


def of(group: list[int], logit: list[float], label: list[int], weight: list[float] | None = None) -> dict[str, float]:
    w = np.ones(len(group)) if weight is None else np.array(weight)
    return grouped(np.array(group), np.array(logit, np.float32), np.array(label, np.float32), w)


def test_in_closed_form() -> None:
    """Group 1 is in perfect order, group 2 in the reverse one; of three and two rows: GAUC = 3/5 * 1 + 2/5 * 0."""
    found = of([1, 2, 1, 2, 1, 3, 3], [3, 1, 2, 0, 1, 5, 6], [1, 0, 0, 1, 0, 1, 1])
    assert found["group_auc"] == pytest.approx(0.6)
    assert found["group_ndcg"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert found["groups"] == 2
    assert found["grouped"] == pytest.approx(5 / 7)  # group 3 has no negative
    assert found["group_auc_se"] == pytest.approx(math.sqrt(9 * 0.4**2 + 4 * 0.6**2) / 5)


def test_a_model_that_knows_only_the_groups_gains_nothing() -> None:
    """All rows of a group have one logit: AUC within groups is a half, whatever AUC over all rows says."""
    draw = np.random.default_rng(1)
    group = np.repeat(np.arange(200), 10)
    label = draw.random(2000) < (group % 10 + 1) / 12
    found = of(group.tolist(), (group % 10).tolist(), label.tolist())
    assert found["group_auc"] == pytest.approx(0.5)
    assert roc_auc_score(label, group % 10) > 0.7


@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_learn(seed: int) -> None:
    """With ties, weights and groups of one class."""
    draw = np.random.default_rng(seed)
    group, label = draw.integers(0, 25, 300), draw.random(300) < 0.3
    logit, weight = draw.integers(-3, 4, 300).astype(np.float32), draw.uniform(0.5, 2, 300)
    aucs, sizes, ndcgs = [], [], []
    for g in range(25):
        mine = group == g
        if len(set(label[mine])) == 2:
            aucs.append(roc_auc_score(label[mine], logit[mine], sample_weight=weight[mine]))
            ndcgs.append(ndcg_score([label[mine]], [logit[mine]]))
            sizes.append(weight[mine].sum())
    found = of(group.tolist(), logit.tolist(), label.tolist(), weight.tolist())
    assert found["group_auc"] == pytest.approx(np.average(aucs, weights=sizes), abs=1e-9)
    assert found["group_ndcg"] == pytest.approx(np.mean(ndcgs), abs=1e-9)
    assert found["groups"] == len(aucs)


def test_no_group_of_both_classes() -> None:
    found = of([1, 2], [0, 0], [0, 1])
    assert math.isnan(found["group_auc"])
    assert found["grouped"] == 0


def batches(slots: np.ndarray, label: np.ndarray, weight: np.ndarray | None, size: int) -> list[Batch]:
    cuts = [slice(at, at + size) for at in range(0, len(label), size)]
    return [Batch(np.asfortranarray(slots[c]), label[c], None if weight is None else weight[c], []) for c in cuts]


@pytest.fixture
def spec() -> FeatureSpec:
    return hash_spec((8, 8))


def test_slices_in_closed_form(spec: FeatureSpec) -> None:
    """One value's rate is predicted exactly, another's is twice what is predicted, a third has no positive."""
    slots = np.repeat(np.array([[3, 3], [4, 3], [5, 3]], np.int32), 1000, axis=0)
    label = np.concatenate([np.arange(1000) % 5 == 0, np.arange(1000) % 5 < 2, np.zeros(1000)]).astype(np.float32)
    slices = Slices(Columns(spec), ["f0"])
    for batch in batches(slots, label, None, 700):
        slices.add(batch, np.full(batch.rows, math.log(0.2 / 0.8), np.float32))
    found = {each.name.split(" = ")[1]: each for each in slices.found()}
    right, twice, none = found.values()
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    right, twice = sorted((right, twice), key=lambda each: each.label_rate)
    assert (right.rows, right.positives, right.label_rate) == (1000, 200, 0.2)
    assert right.logloss == pytest.approx(entropy, abs=1e-6)
    assert right.normalized_entropy == pytest.approx(1, abs=1e-6)
    assert right.calibration == pytest.approx(1, abs=1e-6)
    assert right.low < 1 < right.high  # type: ignore[operator]
    assert twice.label_rate == 0.4
    assert twice.calibration == pytest.approx(0.5, abs=1e-6)
    assert twice.high < 1  # type: ignore[operator]
    assert (none.positives, none.normalized_entropy, none.calibration) == (0, None, None)
    assert [each.positives for each in slices.found()] == [400, 200, 0]  # the worst first, one class alone last


def test_batches_make_no_difference(spec: FeatureSpec) -> None:
    draw = np.random.default_rng(5)
    slots = draw.integers(1, 11, (900, 2)).astype(np.int32)
    label, weight = (draw.random(900) < 0.4).astype(np.float32), draw.uniform(0.5, 2, 900).astype(np.float32)
    logits, told = draw.standard_normal(900).astype(np.float32), []
    for size in (900, 64):
        slices, groups, at = Slices(Columns(spec), ["f0"], "f1"), Groups(Columns(spec), "f1"), 0
        for batch in batches(slots, label, weight, size):
            for each in (slices, groups):
                each.add(batch, logits[at : at + batch.rows])
            at += batch.rows
        told.append((slices.found(), groups.values()))
    assert told[0][1] == told[1][1]
    for one, other in zip(told[0][0], told[1][0], strict=True):
        assert (one.name, one.rows) == (other.name, other.rows)
        assert one.calibration == pytest.approx(other.calibration, rel=1e-12)
        assert one.low == pytest.approx(other.low, rel=1e-9)


def test_fields_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.slices: expected a field of one value of at most 1,000 local"):
        Slices(Columns(hash_spec((5000,))), ["f0"])
