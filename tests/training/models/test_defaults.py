"""What the config leaves open is filled in from model and data; what it names is kept."""

from __future__ import annotations

import pytest

from fieldwise.training.config import TrainingConfig
from fieldwise.training.models import MODELS
from fieldwise.training.models.defaults import settle


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_open_settings_come_from_model_and_data(kind: str) -> None:
    small, large = (settle(TrainingConfig(), kind, rows, rows // 4) for rows in (1_000, 50_000_000))
    assert small.learning_rate == large.learning_rate == MODELS[kind].learning_rate
    assert small.l2 == MODELS[kind].prior / 1_000
    assert large.l2 is not None
    assert large.l2 * 4096 < 0.01, "a row met once in a batch of Criteo's size is hardly held back"
    adam = settle(TrainingConfig(optimizer="adam"), kind, 1_000, 250)
    assert adam.learning_rate == pytest.approx(MODELS[kind].learning_rate / 10)


def test_named_settings_are_kept() -> None:
    config = TrainingConfig(learning_rate=0.5, l2=0.0, epochs=3)
    assert settle(config, "ffm", 1_000, 250) == config


def test_rare_positives_weaken_the_prior_and_lengthen_steps() -> None:
    settled = [settle(TrainingConfig(), "ffm", 100_000, positives) for positives in (50_000, 20_000, 200)]
    assert settled[0] == settled[1]
    spread = (0.002 * 0.998 / (0.19 * 0.81)) ** 0.5
    assert settled[2].l2 == pytest.approx(MODELS["ffm"].prior / 100_000 * spread)
    assert settled[2].learning_rate == pytest.approx(MODELS["ffm"].learning_rate * spread ** (-1 / 3))


@pytest.mark.parametrize("given", [None, 0.05])
def test_a_part_of_a_longer_training(given: float | None) -> None:
    """Goes on as the whole would: the prior of all rows, and steps shorter by the root of the part's share."""
    config = TrainingConfig(learning_rate=given)
    whole, part = settle(config, "ffm", 40_000, 10_000), settle(config, "ffm", 400, 100, line=40_000)
    assert part.l2 == whole.l2
    assert whole.learning_rate is not None
    assert part.learning_rate == pytest.approx(whole.learning_rate / 10)
    told = settle(config.model_copy(update={"warm_rate": 0.5}), "ffm", 400, 100, line=40_000)
    assert told.learning_rate == pytest.approx(whole.learning_rate / 2)
