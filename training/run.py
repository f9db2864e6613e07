"""What goes into a training run and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from training.bundle import Bundle
from training.config import ModelConfig, TrainingConfig
from training.data import TrainData
from training.evaluate import Evaluation


class Tracker(Protocol):
    """Where rank 0 reports to; ``training.tracking.Run`` is one."""

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...


@dataclass(frozen=True)
class TrainRun:
    """One training."""

    data: TrainData
    model: ModelConfig
    training: TrainingConfig
    bundle_dir: str
    """Local directory the bundle is written to."""
    warm_start: Bundle | None = None
    """Start from these weights; its spec and model must be the run's own."""
    tracker: Tracker | None = None
    """On rank 0 only."""


@dataclass(frozen=True)
class EpochRecord:
    """What happened in an epoch; the same on every rank."""

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
    """Handed to collectives by all ranks."""
    order_digests: list[str]
    """Per rank, of its rows in the order they were trained."""


@dataclass(frozen=True)
class TrainResult:
    """The same on every rank."""

    bundle_dir: str
    bundle_digest: str
    best_epoch: int
    history: list[EpochRecord]
    evaluations: dict[str, Evaluation]
    """By split, of the bundle's weights."""
    rows_per_second: float
    """Of training steps, evaluation left out."""
