"""Random search over committed ranges (Bergstra and Bengio 2012).

A trial is a pure function of (kind, seed, number): a search can stop anywhere, go on later, or be extended, and the
trials are the same. Epochs are not drawn: early stopping finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.models import MODELS, NO_KEYS

EPOCHS = 50
"""At most, whatever the learning rate; early stopping usually ends far sooner."""


@dataclass(frozen=True)
class LogUniform:
    """exp(uniform(log low, log high)), to three significant digits."""

    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float:
        return float(f"{np.exp(generator.uniform(np.log(self.low), np.log(self.high))):.3g}")


LEARNING_RATE = {"adagrad": LogUniform(0.005, 0.5), "adam": LogUniform(0.0005, 0.05)}
L2 = LogUniform(1e-7, 1e-3)
INIT_SCALE = LogUniform(0.003, 0.3)
DIM = (0.25, 0.5, 1.0, 2.0)
"""Times the model's own default."""


def draw(
    kind: str, seed: int, number: int, training: TrainingConfig, own: Mapping[str, Any] = NO_KEYS
) -> tuple[ModelConfig, TrainingConfig]:
    """Trial ``number`` of a search; what is not searched stays as in ``training`` and the kind's ``own`` keys."""
    generator = np.random.Generator(np.random.PCG64([seed, number, *kind.encode()]))
    optimizer = str(generator.choice(list(LEARNING_RATE)))
    drawn = {
        "optimizer": optimizer,
        "learning_rate": LEARNING_RATE[optimizer].draw(generator),
        "l2": L2.draw(generator),
        "epochs": EPOCHS,
        "patience": training.patience or TrainingConfig().patience,
    }
    model: dict[str, Any] = {"kind": kind, **own}
    if MODELS[kind].latent:
        dim = max(1, round(MODELS[kind].default_dim * generator.choice(DIM)))
        model |= {"dim": dim, "init_scale": INIT_SCALE.draw(generator)}
    return ModelConfig.model_validate(model), TrainingConfig.model_validate(training.model_dump() | drawn)
