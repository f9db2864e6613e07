"""What logits follow from: shares that add up to one, of every model that can; the planted pair comes first."""

from __future__ import annotations

import numpy as np
import pytest

from fieldwise.features.errors import ArtifactError
from fieldwise.training.models import MODELS, settings_of
from fieldwise.training.models.layout import Layout
from fieldwise.training.scoring.importance import FEWEST, MOST, importance, rows_for
from fieldwise.training.scoring.scorer import PlainWeights, Scorer
from tests.training import random_models as models
from tests.training.scoring.test_scorer import SHAPE


def drawn(kind: str, seed: int = 3) -> tuple[Scorer, np.ndarray, np.ndarray]:
    scorer, slots = models.scorer(kind, SHAPE, seed), models.rows(SHAPE, 300, seed + 1)
    label = (np.random.default_rng(seed).random(300) < 0.4).astype(np.float32)
    return scorer, slots, label


@pytest.mark.parametrize("kind", [kind for kind in MODELS if MODELS[kind].pairwise])
def test_shares_add_up(kind: str) -> None:
    scorer, slots, label = drawn(kind)
    which, parts = scorer.parts(slots)
    assert which[0] == ()
    np.testing.assert_allclose(parts.sum(1), scorer.logits(slots), rtol=1e-5, atol=1e-5)
    found = importance(scorer, slots, label)
    assert found.alone is not None
    assert found.pairs is not None
    assert found.fields is not None
    assert found.alone.sum() + found.pairs.sum() == pytest.approx(1, abs=1e-9)
    assert found.fields.sum() == pytest.approx(1, abs=1e-9)
    assert found.variance == pytest.approx(np.var(scorer.logits(slots).astype(float)), rel=1e-5)
    if kind == "lr":
        np.testing.assert_allclose(found.pairs, 0, atol=1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_a_hidden_field_costs_what_scoring_without_it_does(kind: str) -> None:
    scorer, slots, label = drawn(kind)
    weight = np.random.default_rng(1).random(300).astype(np.float32)
    found = importance(scorer, slots, label, weight)

    def loss(of: np.ndarray) -> float:
        z = scorer.logits(of).astype(float)
        return float(np.average(np.logaddexp(0, np.where(label > 0, -z, z)), weights=weight))

    without = slots.copy()
    without[:, scorer.layout.field_of_slot == 1] = 0
    assert found.hidden[1] == pytest.approx(loss(without) - loss(slots), rel=1e-6, abs=1e-9)
    assert (found.alone is None) == (not MODELS[kind].pairwise)


def test_the_strong_pair_comes_first() -> None:
    """FM of four fields: vectors of one dimension, large in the first and the third field, signs that do not add up."""
    size, draw = 10, np.random.default_rng(0)
    sizes = [size] * 4
    table = np.zeros((sum(sizes), 2), np.float32)
    table[:, 1] = draw.choice([-1.0, 1.0], len(table)) * np.repeat([2.0, 0.3, 1.5, 0.1], size)
    scorer = Scorer(
        PlainWeights(settings_of("fm", dim=1), Layout.single(sizes), table, {"bias": np.zeros(1, np.float32)})
    )
    slots = draw.integers(3, size, (2000, 4)).astype(np.int32)
    found = importance(scorer, slots, np.ones(2000, np.float32))
    assert found.strongest[0] == (0, 2)
    assert found.pairs is not None
    assert found.pairs[0, 2] > 0.85
    assert found.fields is not None
    assert np.argsort(-found.fields)[:2].tolist() == [0, 2] or np.argsort(-found.fields)[:2].tolist() == [2, 0]


def test_models_without_variance_or_shares() -> None:
    scorer, slots, label = drawn("fm")
    flat = importance(scorer, np.repeat(slots[:1], 9, axis=0), label[:9])
    assert flat.alone is None
    assert flat.strongest == []
    with pytest.raises(ArtifactError, match="Explain a model of another kind"):
        drawn("deepfm")[0].parts(slots)


def test_rows_follow_from_the_time_they_take() -> None:
    assert rows_for(2, True) == MOST
    assert rows_for(60, True) == FEWEST
    assert FEWEST < rows_for(20, True) < MOST
    assert rows_for(60, False) > rows_for(60, True)
