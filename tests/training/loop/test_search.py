"""A trial is a pure function of (kind, seed, number) inside the committed ranges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.training.config import TrainingConfig
from fieldwise.training.loop import search
from fieldwise.training.models import MODELS, resolved

BASE = TrainingConfig(batch_size=512, seed=7)


@given(st.sampled_from(sorted(MODELS)), st.integers(0, 2**32), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_a_draw_repeats_and_lies_in_the_ranges(kind: str, seed: int, number: int) -> None:
    model, training = search.draw(kind, seed, number, BASE)
    assert (model, training) == search.draw(kind, seed, number, BASE)
    rates = search.LEARNING_RATE[training.optimizer]
    assert rates.low <= training.learning_rate <= rates.high
    assert search.L2.low <= training.l2 <= search.L2.high
    assert (training.batch_size, training.seed, training.epochs) == (512, 7, search.EPOCHS)
    assert training.patience is not None
    resolved(model)  # refuses settings the kind has no use for
    if MODELS[kind].latent:
        assert model.dim in [max(1, round(part * MODELS[kind].default_dim)) for part in search.DIM]
        assert model.init_scale is not None
        assert search.INIT_SCALE.low <= model.init_scale <= search.INIT_SCALE.high


def test_draws_fill_the_ranges_evenly_in_the_logarithm() -> None:
    draws = [search.draw("ffm", 1, number, BASE) for number in range(400)]
    l2 = [training.l2 for _, training in draws]
    middle = (search.L2.low * search.L2.high) ** 0.5
    assert sum(value < middle for value in l2) == pytest.approx(200, abs=40)
    assert len(set(l2)) > 300
    assert {training.optimizer for _, training in draws} == set(search.LEARNING_RATE)
    assert len({model.dim for model, _ in draws}) == len(search.DIM)


def test_kinds_seeds_and_numbers_draw_differently() -> None:
    drawn = {search.draw(*key, BASE)[1].l2 for key in (("fm", 1, 0), ("ffm", 1, 0), ("fm", 2, 0), ("fm", 1, 1))}
    assert len(drawn) == 4


def test_patience_of_the_config_is_kept_and_never_absent() -> None:
    assert search.draw("lr", 1, 0, TrainingConfig(patience=5))[1].patience == 5
    assert search.draw("lr", 1, 0, TrainingConfig(patience=None))[1].patience == TrainingConfig().patience
