"""How a step is taken: its learning rate, and in how many parts.

The rate is a pure function of where training stands, so a resumed run goes on alike:

    warm-up   rate * (step + 1) / warmup_steps         while step < warmup_steps
    constant  rate
    linear    rate * (1 - t)                           t = (step - warmup_steps) / (steps - warmup_steps)
    cosine    rate * (1 + cos(pi t)) / 2

``step`` counts from 0 over all epochs, ``steps`` is their number: the decay ends with the last epoch.
"""

from __future__ import annotations

import math

from fieldwise.features.errors import ConfigError
from fieldwise.training.config import TrainingConfig


def require_rate(config: TrainingConfig) -> None:
    """ConfigError for a schedule that cannot work with this optimizer."""
    if config.optimizer == "ftrl" and (config.schedule != "constant" or config.warmup_steps):
        raise ConfigError(
            "training.schedule",
            expected="one rate throughout for ftrl, whose state is in units of it",
            found=f"{config.schedule} after {config.warmup_steps} steps of warm-up",
            fix="Remove schedule and warmup_steps, or use adagrad.",
        )


def require_schedule(config: TrainingConfig, steps: int) -> None:
    """ConfigError for a schedule that cannot work in ``steps`` steps or with this optimizer."""
    require_rate(config)
    if config.warmup_steps >= steps:
        raise ConfigError(
            "training.warmup_steps",
            expected=f"fewer than the {steps} steps of the training",
            found=str(config.warmup_steps),
            fix="Warm up for less, or train more epochs.",
        )


def require_parts(config: TrainingConfig, compiled: bool) -> None:
    """ConfigError for gradient accumulation that would save nothing or leave parts without rows."""
    if config.accumulate > 1 and (compiled or config.accumulate > config.batch_size):
        raise ConfigError(
            "training.accumulate",
            expected="1: compiled kernels keep nothing between forward and backward" if compiled
            else f"at most the {config.batch_size} rows of a step",
            found=str(config.accumulate),
            fix="Remove it; batch_size alone says how many rows make a step.",
        )  # fmt: skip


def rate_at(config: TrainingConfig, step: int, steps: int) -> float:
    """Learning rate of a step; ``config.learning_rate`` is settled."""
    rate, warm = config.learning_rate, config.warmup_steps
    assert rate is not None
    if step < warm:
        return rate * (step + 1) / warm
    t = (step - warm) / (steps - warm)
    factors = {"constant": 1.0, "linear": 1 - t, "cosine": (1 + math.cos(math.pi * t)) / 2}
    return rate * factors[config.schedule]
