"""What a config leaves open, filled in from the model and the data.

The loss is a mean over rows, so a Gaussian prior of precision p on every weight is l2 = p / rows: strong on small data,
vanishing on large. Learning rates differ by how many weights add up in one logit: Adagrad moves each by about the rate
when it first meets it, so models of few weights want larger steps.

Where positives are rare, few rows speak for a weight that may be large. There the prior is weaker, in proportion to the
labels' standard deviation, and steps are longer, by its cube root; both were chosen on TalkingData (0.2 % positives).
``benchmarks/defaults.py`` measures all of it.
"""

from __future__ import annotations

import math

from fieldwise.training.config import TrainingConfig
from fieldwise.training.models import MODELS

RELATIVE_RATE = {"adam": 0.1}
"""Times Adagrad's learning rate. Adam's steps do not shrink over time."""


RARE = 0.19
"""Share of positives below which they count as rare; priors were chosen at 0.19 and 0.55."""


def settle(config: TrainingConfig, kind: str, rows: int, positives: int) -> TrainingConfig:
    """The config with learning rate and l2 of a registered model for training rows, where it names none."""
    rate, l2, share = config.learning_rate, config.l2, positives / rows
    spread = min(1.0, math.sqrt(share * (1 - share) / (RARE * (1 - RARE))))
    if rate is None:
        rate = MODELS[kind].learning_rate * RELATIVE_RATE.get(config.optimizer, 1.0) / spread ** (1 / 3)
    if l2 is None:
        l2 = MODELS[kind].prior * spread / rows
    return config.model_copy(update={"learning_rate": rate, "l2": l2})
