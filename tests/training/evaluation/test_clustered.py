"""Gains beyond chance where rows of a value rise and fall together."""

from __future__ import annotations

import numpy as np
import pytest

from fieldwise.features.arrays import Float64, Int32
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.data.batch import Batch
from fieldwise.training.evaluation.clustered import BLOCKS, ClusteredLoss, surely_lower
from fieldwise.training.ranks.world import World

CONFIGS = [HashField(kind="hash", name=name, buckets=buckets) for name, buckets in (("user", 40), ("device", 2))]
SPEC = FeatureSpec.assemble(CONFIGS, {config.name: config.fit(None) for config in CONFIGS})
FLAGS = [HashField(kind="hash", name=f"flag{n}", buckets=2) for n in range(12)]
FLAGGED = FeatureSpec.assemble(FLAGS, {config.name: config.fit(None) for config in FLAGS})


def observed(
    slots: Int32, logits: Float64, label: Float64, weight: Float64 | None = None, spec: FeatureSpec = SPEC
) -> list[list[list[float]]]:
    losses = ClusteredLoss(spec)
    weights = None if weight is None else weight.astype(np.float32)
    losses.add(Batch(slots, label.astype(np.float32), weights, []), logits.astype(np.float32))
    return losses.take(World())


def rows(seed: int, count: int = 4000) -> tuple[Int32, Float64]:
    draw = np.random.default_rng(seed)
    slots = np.stack([draw.integers(3, 43, count), draw.integers(3, 5, count)], axis=1).astype(np.int32)
    return np.asfortranarray(slots), (draw.random(count) < 0.3).astype(np.float64)


def test_sums_are_those_of_each_block() -> None:
    (slots, label), draw = rows(1), np.random.default_rng(2)
    logits, weight = draw.normal(size=len(label)), draw.random(len(label))
    found = np.array(observed(slots, logits, label, weight))
    logits, weight = logits.astype(np.float32).astype(np.float64), weight.astype(np.float32).astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    loss = -weight * np.where(label > 0, np.log(p), np.log1p(-p))
    for field in range(2):
        for block in range(BLOCKS):
            inside = slots[:, field] % BLOCKS == block
            assert found[0, field, block] == pytest.approx(weight[inside].sum())
            assert found[1, field, block] == pytest.approx(loss[inside].sum())


def test_a_lucky_row_is_no_gain_where_no_field_clusters() -> None:
    """All fields have two values; the loss falls for one row of 4,000 alone, by more than it rises for the others."""
    _, label = rows(6)
    slots = np.asfortranarray(np.random.default_rng(6).integers(3, 5, (len(label), len(FLAGS))), np.int32)
    before, lucky = np.full(len(label), -0.85), np.arange(len(label)) == np.flatnonzero(label)[0]
    after = before + np.where(lucky, 6.0, np.where(label > 0, -0.0003, 0.0003))
    everybody = before + np.where(label > 0, 0.1, -0.1)
    found = {
        name: observed(slots, logits, label, spec=FLAGGED)
        for name, logits in (("before", before), ("after", after), ("everybody", everybody))
    }
    assert np.array(found["after"])[1, 0].sum() < np.array(found["before"])[1, 0].sum()
    assert not surely_lower(found["after"], found["before"])
    assert surely_lower(found["everybody"], found["before"])


def test_sums_begin_anew() -> None:
    (slots, label), losses = rows(1), ClusteredLoss(SPEC)
    losses.add(Batch(slots, label.astype(np.float32), None, []), np.zeros(len(label), np.float32))
    assert np.sum(losses.take(World())) > 0
    assert np.sum(losses.take(World())) == 0


def test_a_small_gain_for_everybody_is_sure_and_more_of_it_from_one_user_is_not() -> None:
    slots, label = rows(3)
    before = np.full(len(label), -0.85)
    everybody = before + np.where(label > 0, 0.01, -0.01)
    few = slots[:, 0] == 5
    lucky = before + few * np.where(label > 0, 3.0, -3.0)

    def mean(logits: Float64) -> float:
        return float(np.array(observed(slots, logits, label))[1, 0].sum() / len(label))

    assert mean(lucky) < mean(everybody) < mean(before)
    assert surely_lower(observed(slots, everybody, label), observed(slots, before, label))
    assert not surely_lower(observed(slots, lucky, label), observed(slots, before, label))
    assert not surely_lower(observed(slots, before, label), observed(slots, everybody, label))


def test_equal_losses_are_no_gain() -> None:
    slots, label = rows(4)
    same = observed(slots, np.zeros(len(label)), label)
    assert not surely_lower(same, same)


def test_fields_of_few_values_cluster_nothing() -> None:
    slots, label = rows(5)
    before, device = np.full(len(label), -0.85), slots[:, 1] == 3
    after = before + device * np.where(label > 0, 0.1, -0.1)  # all of the gain is in one of two values
    assert surely_lower(observed(slots, after, label), observed(slots, before, label))
