"""The split between context and item: a + b + <u, v> is the model's logit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.features.errors import ConfigError, IntegrityError
from fieldwise.training.models import kinds, settings_of
from fieldwise.training.scoring.factors import (
    PairTable,
    context_factors,
    dimensions,
    item_factors,
    require_factors,
)
from fieldwise.training.scoring.scorer import PlainWeights, Scorer
from tests.training import random_models as models


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(kinds("splits")),
    of_item=st.lists(st.booleans(), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_the_split_is_exact(kind: str, of_item: list[bool], seed: int) -> None:
    draw = np.random.default_rng(seed)
    n = len(of_item)
    shape = models.layout(draw.integers(2, 9, n), draw.integers(1, 4, n), draw.integers(0, 2, n) == 1)
    scorer, sides = models.scorer(kind, shape, seed), np.array(of_item)
    contexts, items = models.rows(shape, 7, seed + 1), models.rows(shape, 9, seed + 2)
    a, b = context_factors(scorer, sides, contexts), item_factors(scorer, sides, items)
    assert a.vectors.shape == (7, dimensions(scorer, sides))
    split = a.linear[:, None] + b.linear + a.vectors.astype(np.float64) @ b.vectors.T.astype(np.float64)
    if kind == "poly2":
        across = np.empty((7, 9), np.float32)
        PairTable.of(scorer, sides, items).across(scorer, sides, contexts, slice(0, 9), across)
        split += across
    expected = scorer.logits(models.merged(shape, sides, contexts, items)).reshape(7, 9)
    scale = (
        1 + np.abs(a.linear).max() + np.abs(b.linear).max() + (np.linalg.norm(a.vectors, axis=1).max() if n else 0) ** 2
    )
    np.testing.assert_allclose(split, expected, rtol=1e-6, atol=1e-6 * scale)


def test_ffm_keeps_only_the_blocks_across() -> None:
    """2 context fields x 3 item fields x k = 4, in the same order on both sides."""
    shape = models.layout([5] * 5, [1] * 5, [False] * 5)
    scorer = models.scorer("ffm", shape, 1, dim=4)
    sides = np.array([False, True, True, False, True])
    slots = np.maximum(models.rows(shape, 1, 2), 1)
    u, v = context_factors(scorer, sides, slots).vectors[0], item_factors(scorer, sides, slots).vectors[0]
    assert len(u) == len(v) == 2 * 3 * 4
    row = scorer.table[shape.offset_of_slot + slots[0]]
    block = [(f, g) for f in (0, 3) for g in (1, 2, 4)]
    np.testing.assert_array_equal(u, np.concatenate([row[f, 1 + g * 4 : 5 + g * 4] for f, g in block]))
    np.testing.assert_array_equal(v, np.concatenate([row[g, 1 + f * 4 : 5 + f * 4] for f, g in block]))


def test_the_other_side_is_not_read() -> None:
    shape = models.layout([5] * 3, [1] * 3, [False] * 3)
    scorer, sides = models.scorer("ffm", shape, 1), np.array([False, True, False])
    slots = models.rows(shape, 20, 2)
    changed = slots.copy()
    changed[:, 1] = 1
    one, other = context_factors(scorer, sides, slots), context_factors(scorer, sides, changed)
    np.testing.assert_array_equal(one.linear, other.linear)
    np.testing.assert_array_equal(one.vectors, other.vectors)


def test_a_model_without_factors_is_named() -> None:
    with pytest.raises(
        ConfigError,
        match=r"model.kind deepfm: expected a model that splits into context and item factors: lr, ",
    ):
        require_factors("deepfm")


def test_weights_that_diverged_are_refused() -> None:
    shape = models.layout([5] * 2, [1] * 2, [False] * 2)
    table = np.full((10, 3), np.nan, np.float32)
    scorer = Scorer(PlainWeights(settings_of("fm", dim=2), shape, table, {"bias": np.zeros(1, np.float32)}))
    with pytest.raises(IntegrityError, match="NaN or infinity"):
        item_factors(scorer, np.array([False, True]), np.array([[1, 1]], np.int32))
