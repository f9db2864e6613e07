"""What the config leaves open is filled in from model and data; what it names is kept."""

from __future__ import annotations

import pytest

from training.config import TrainingConfig
from training.defaults import settle
from training.models import MODELS


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


def test_rare_positives_weaken_the_prior() -> None:
    l2 = [settle(TrainingConfig(), "ffm", 100_000, positives).l2 for positives in (50_000, 20_000, 200, 50)]
    assert l2[0] == l2[1] == MODELS["ffm"].prior / 100_000
    assert l2[2] == pytest.approx(l2[0] * (0.002 * 0.998 / (0.19 * 0.81)) ** 0.5)
    assert l2[3] == pytest.approx(l2[2] / 2, rel=1e-3)
