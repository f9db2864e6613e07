"""The scoring routine: equal to the model, bit-stable whatever surrounds a row, monotone, explained exactly."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fieldwise.features.errors import IntegrityError
from fieldwise.training.kernels.exact import KINDS
from fieldwise.training.models import MODELS, settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.models.layout import Layout
from fieldwise.training.scoring.scorer import PlainWeights, Scorer
from fieldwise.training.step.lookup import lookup
from tests.training import random_models as models

SHAPE = models.layout([7, 9, 5, 11], [1, 3, 1, 2], [False, True, False, False])


@pytest.mark.parametrize("kind", MODELS)
def test_equals_the_model_in_float64(kind: str) -> None:
    scorer, slots = models.scorer(kind, SHAPE, 1), models.rows(SHAPE, 300, 2)
    model = build_model(settings_of(kind, dim=3, pair_buckets=67), SHAPE, fused=False).double()
    model.load_state_dict({n: torch.from_numpy(v) for n, v in scorer.dense.items()})
    found = lookup(SHAPE, slots, model.pair_buckets)
    table = torch.from_numpy(scorer.table[found.ids.numpy()].astype(np.float64))
    expected = model(table, found.index, found.factor.double()).detach().numpy()
    np.testing.assert_allclose(scorer.logits(slots), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_bits_depend_on_the_row_alone(kind: str) -> None:
    scorer, slots = models.scorer(kind, SHAPE, 3), models.rows(SHAPE, 20_000, 4)
    whole = scorer.logits(slots)
    order = np.random.default_rng(5).permutation(len(slots))
    np.testing.assert_array_equal(scorer.logits(slots[order], threads=3), whole[order])
    np.testing.assert_array_equal([scorer.logits(slots[i : i + 1])[0] for i in range(50)], whole[:50])


@pytest.mark.parametrize("kind", sorted(set(MODELS) - set(KINDS)))
def test_two_threads_call_one_model(kind: str) -> None:
    """Each call fills the lookup's map and turns dropout off and on."""
    scorer, slots = models.scorer(kind, SHAPE, 3), models.rows(SHAPE, 4000, 4)
    whole = scorer.logits(slots)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scorer.logits, np.array_split(slots, 80)))
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_all_weights_one_is_arithmetic() -> None:
    """FFM, k = 2, three fields of one value: 3 linear weights and 3 pairs of <1, 1> = 2, and the bias."""
    shape = Layout.single([4, 4, 4])
    weights = PlainWeights(
        settings_of("ffm", dim=2),
        shape,
        np.ones((12, 7), np.float32),
        {"bias": np.array([0.5], np.float32)},
    )
    assert Scorer(weights).logits(np.array([[3, 1, 2]], np.int32)).tolist() == [3 + 3 * 2 + 0.5]


def test_padding_contributes_nothing() -> None:
    for kind in (kind for kind in MODELS if MODELS[kind].pairwise):  # a perceptron answers to nothing, too
        scorer = models.scorer(kind, SHAPE, 6)
        assert scorer.logits(np.zeros((1, SHAPE.slots), np.int32))[0] == np.float32(scorer.bias)


@given(st.lists(st.floats(-200, 200, width=32), min_size=2, max_size=30), st.floats(-5, 5))
def test_calibration_never_reorders(logits: list[float], shift: float) -> None:
    scorer = models.scorer("lr", SHAPE, 7, shift=shift)
    ordered = np.sort(np.array(logits, np.float32))
    probabilities = scorer.calibrated(ordered)
    assert (np.diff(probabilities) >= 0).all()
    expected = [1 / (1 + math.exp(-(float(z) + shift))) for z in ordered]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if MODELS[kind].pairwise])
def test_an_explanation_adds_up(kind: str) -> None:
    scorer, slots = models.scorer(kind, SHAPE, 8, shift=-0.75), models.rows(SHAPE, 30, 9)
    for row in slots:
        explained = scorer.explain(row)
        total = math.fsum(part.value for part in explained.parts)
        assert total == pytest.approx(explained.logit, rel=1e-6, abs=1e-6)
        odds = explained.logit + explained.logit_shift
        assert explained.probability == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-6)
        assert explained.probability == scorer.probabilities(row[None])[0]
        sizes = [abs(part.value) for part in explained.parts]
        assert sizes == sorted(sizes, reverse=True)


def test_an_explanation_names_the_pair() -> None:
    """FM over two fields: the pair's share is <v, w> = 1*3 + 2*4."""
    shape = Layout.single([4, 4])
    table = np.zeros((8, 3), np.float32)
    table[3], table[7] = (0.25, 1, 2), (0.5, 3, 4)
    scorer = Scorer(PlainWeights(settings_of("fm", dim=2), shape, table, {"bias": np.array([-1], np.float32)}))
    shares = {part.fields: part.value for part in scorer.explain(np.array([3, 3], np.int32)).parts}
    assert shares == {(): -1, (0,): 0.25, (1,): 0.5, (0, 1): 11}


def test_stray_indices_are_refused_before_any_kernel() -> None:
    scorer, slots = models.scorer("ffm", SHAPE, 1), models.rows(SHAPE, 5, 1)
    for value in (-1, 11):
        slots[3, 6] = value
        with pytest.raises(IntegrityError, match=r"slot 6 \(field 3\): expected local indices in \[0, 11\)"):
            scorer.logits(slots)
    with pytest.raises(IntegrityError, match=r"expected shape \[n, 7\]"):
        scorer.logits(slots[:, :3])


def test_foreign_weights_are_refused() -> None:
    weights = PlainWeights(
        settings_of("fm", dim=2),
        Layout.single([4, 4]),
        np.zeros((8, 4), np.float32),
        {"bias": np.zeros(1, np.float32)},
    )
    with pytest.raises(IntegrityError, match=r"expected shape \(8, 3\), found \(8, 4\)"):
        Scorer(weights)
