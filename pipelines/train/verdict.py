"""Whether a model is worth registering: a constant, the rate of positives, must not predict better than it.

Better beyond chance, that is: on a few hundred rows, a sound model of weak data may stand a little on the wrong side of
1. One that is worse by no more than ``CHANCE`` standard errors, and ``MOST``, is registered, and it is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fieldwise.features.errors import RefusedError

DIVERGED = 10.0
"""Normalized entropy past which training has run away: no step in the right direction ends there."""

CHANCE = 2.0
"""Standard errors by which a model may be worse than the rate of positives and still be no worse for all we know."""
MOST = 0.05
"""Of normalized entropy, however large its error: where training runs away, the error does as well."""

TOLD = 0.1
"""Normalized entropy below which hardly anything is left to chance: people's clicks are not so, leaks are."""


@dataclass(frozen=True)
class Verdict:
    """Of one split. Normalized entropy is the logloss over that of the split's own rate of positives."""

    split: str
    logloss: float
    normalized_entropy: float
    error: float = 0.0
    """Standard error of the normalized entropy."""

    @property
    def useless(self) -> bool:
        """Worse than the rate of positives, beyond chance."""
        return not (math.isfinite(self.logloss) and self.normalized_entropy < 1 + min(CHANCE * self.error, MOST))

    @property
    def doubtful(self) -> bool:
        """Not better than the rate of positives."""
        return not self.normalized_entropy < 1

    @property
    def told_beforehand(self) -> bool:
        """So good that a column may say what happened, or come after it."""
        return self.normalized_entropy < TOLD

    @property
    def words(self) -> str:
        ratio, rate = self.normalized_entropy, self.logloss / self.normalized_entropy
        if ratio <= DIVERGED:
            told = f"logloss {self.logloss:.5f}, of the rate alone {rate:.5f}"
            return f"normalized entropy {ratio:.5f} +- {self.error:.5f} ({told})"
        return f"a diverged training: normalized entropy {ratio:,.0f} (logloss {self.logloss:,.0f}, not {rate:.5f})"

    def refusal(self, done: Mapping[str, Any]) -> RefusedError:
        """Of a finished training, by its result."""
        return RefusedError(
            f"split {self.split}",
            expected="a model that is better than predicting the rate of positives for every row",
            found=self.words,
            fix=f"Nothing is registered; the metrics are kept in run {done.get('run')}, the model in {done['bundle']}. "
            "Lower training.learning_rate or raise training.l2. To register it all the same, as challenger and without "
            "training again: the same command with --force.",
        )


def judge(metrics: Mapping[str, Mapping[str, float]]) -> Verdict:
    """By the first of valid, test and train that has rows of both classes: unseen rows say more than trained ones."""
    able = [split for split in ("valid", "test", "train") if split in metrics]
    split = next((s for s in able if not math.isnan(metrics[s]["normalized_entropy"])), able[-1])
    found = metrics[split]
    error = found.get("normalized_entropy_se", 0.0)
    return Verdict(split, found["logloss"], found["normalized_entropy"], error if math.isfinite(error) else 0.0)
