"""Where a training stands, and what happened in its epochs. All of it is the same on every rank."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fieldwise.features.errors import ArtifactError
from fieldwise.features.words import complaint


@dataclass(frozen=True)
class EpochRecord:
    """What happened in an epoch."""

    epoch: int
    train_logloss: float
    """Progressive: each batch is scored before it is trained on."""
    valid: dict[str, float]
    """Empty without a validation split."""
    rows_planned: int
    """As the manifests say."""
    rows_read: int
    """That left the readers of all ranks."""
    rows_trained: int
    """That came with the summed gradients."""
    steps: int
    seconds: float
    """Of training steps, evaluation left out."""
    exchanged_bytes: int
    """Handed to collectives by all ranks, since the last resume."""
    order_digests: list[str]
    """Per rank, of its rows in the order they were trained, since the last resume."""

    def __str__(self) -> str:
        valid = f", valid {self.valid['logloss']:.5f}" if self.valid else ""
        speed = f"{self.rows_trained / max(self.seconds, 1e-9):,.0f} rows/s"
        return f"epoch {self.epoch + 1}: logloss train {self.train_logloss:.5f}{valid}, {speed}"


@dataclass
class Progress:
    """The next step to train; the sums are of its epoch, over all ranks and resumes."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    rows_read: int = 0
    rows_trained: int = 0
    seconds: float = 0.0
    best_epoch: int = -1
    best_logloss: float = math.inf
    history: list[EpochRecord] = field(default_factory=list)

    @staticmethod
    def from_json(value: Any) -> Progress:
        """Raises ArtifactError when the value is none."""
        try:
            progress = _ADAPTER.validate_python(value)
        except ValidationError as error:
            found = complaint(error, Progress)
            raise ArtifactError(
                "checkpoint", expected="a progress", found=found, fix="Delete the checkpoint."
            ) from error
        return progress

    def waited(self) -> int:
        """Epochs since the best one."""
        return self.epoch - 1 - self.best_epoch


_ADAPTER = TypeAdapter(Progress)
