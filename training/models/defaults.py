"""What a config leaves open, filled in from the model and the data.

The loss is a mean over rows, so a Gaussian prior of precision p on every weight is l2 = p / rows: strong on small data,
vanishing on large. Learning rates differ by how many weights add up in one logit: Adagrad moves each by about the rate
when it first meets it, so models of few weights want larger steps.

Where positives are rare, few rows speak for a weight that may be large. There the prior is weaker, in proportion to the
labels' standard deviation, and steps are longer, by its cube root; both were chosen on TalkingData (0.2 % positives).
``benchmarks/defaults.py`` measures all of it.

A training that goes on from another model's weights is one part of a longer one, over all rows that its line has
learned from: the prior is spread over all of them, or it would be far too strong for the part, and draw every weight
that the part does not speak for to zero. Optimizer state starts anew, so steps are as long as at the very start;
Adagrad that had gone on would take steps shorter by about the root of the part's share, and so do we.
``benchmarks/daily_streams.py`` measures that.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from fieldwise.features.schema import Strict
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.models import MODELS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

RELATIVE_RATE = {"adam": 0.1}
"""Times Adagrad's learning rate. Adam's steps do not shrink over time."""


RARE = 0.19
"""Share of positives below which they count as rare; priors were chosen at 0.19 and 0.55."""


class Chosen(Strict):
    """What a search on the data's own validation rows found (`training.loop.automatic`)."""

    optimizer: str
    learning_rate: Positive
    l2: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    dim: Annotated[int, Field(ge=0)]
    """0 for a model that has none."""
    rows: Annotated[int, Field(ge=1)]
    """Of the training that ``l2`` is meant for."""
    epochs: Annotated[int, Field(ge=0)]
    """After which validation was best."""
    trials: Annotated[int, Field(ge=1)]
    valid: Positive
    """Logloss of the best trial, on the rows that trials were validated on."""
    prior_valid: Positive | None
    """Of the priors on the same rows, until they were given up; None where they diverged."""

    def fill(self, model: ModelConfig, training: TrainingConfig, rows: int) -> tuple[ModelConfig, TrainingConfig]:
        """Model and training with these settings where they name none, for a training of so many rows."""
        found = {"learning_rate": self.learning_rate, "l2": self.l2 * self.rows / rows}
        if self.optimizer != training.optimizer:
            found = {}
        open_ones = {name: value for name, value in found.items() if getattr(training, name) is None}
        if self.dim and model.dim is None:
            model = model.model_copy(update={"dim": self.dim})
        return model, training.model_copy(update=open_ones)


def settle(config: TrainingConfig, kind: str, rows: int, positives: int, line: int | None = None) -> TrainingConfig:
    """The config with learning rate and l2 of a registered model for training rows, where it names none.

    Args:
        line: rows that all trainings of the model's line have learned from, where it goes on from another one: then the
            rate, given or not, is multiplied by ``warm_rate``, by default sqrt(rows / line).
    """
    rate, l2, share = config.learning_rate, config.l2, positives / rows
    spread = min(1.0, math.sqrt(share * (1 - share) / (RARE * (1 - RARE))))
    if rate is None:
        rate = MODELS[kind].learning_rate * RELATIVE_RATE.get(config.optimizer, 1.0) / spread ** (1 / 3)
    if l2 is None:
        l2 = MODELS[kind].prior * spread / (line or rows)
    if line is not None:
        rate *= math.sqrt(min(1.0, rows / line)) if config.warm_rate is None else config.warm_rate
    return config.model_copy(update={"learning_rate": rate, "l2": l2})
