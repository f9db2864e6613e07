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

from fieldwise.training.config import TrainingConfig
from fieldwise.training.models import MODELS

RELATIVE_RATE = {"adam": 0.1}
"""Times Adagrad's learning rate. Adam's steps do not shrink over time."""


RARE = 0.19
"""Share of positives below which they count as rare; priors were chosen at 0.19 and 0.55."""


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
