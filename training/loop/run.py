"""What goes into a training run and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fieldwise.features.store.kept import digest_of
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.learned import Learned
from fieldwise.training.data.splits import TrainData
from fieldwise.training.evaluation.evaluate import Evaluation
from fieldwise.training.loop.progress import EpochRecord
from fieldwise.training.models.defaults import Chosen
from fieldwise.training.network.bundle import Bundle

UNTOLD = 25
"""Times the rows of a training: what a model of an earlier version, which does not tell, is taken to have seen."""


def _nothing() -> None:
    """Directories are where they are wanted."""


class Tracker(Protocol):
    """Where rank 0 reports to: ``training.tracking.journal.Journal``, or ``training.tracking.runs.Run`` itself."""

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...


@dataclass(frozen=True)
class TrainRun:
    """One training."""

    data: TrainData
    model: ModelConfig
    training: TrainingConfig
    bundle_dir: str
    """Local directory the bundle is written to. Empty for a trial, whose weights nobody keeps."""
    checkpoint_dir: str | None = None
    """Local directory of checkpoints; a killed run of the same settings and data is resumed from it. None: none."""
    warm_start: Bundle | None = None
    """Start from these weights, by value where its spec is another of the same fields; its model must be the run's."""
    tracker: Tracker | None = None
    """On rank 0 only."""
    saved: Callable[[], None] = _nothing
    """Called once something was written below these directories that a killed run resumes from."""
    told: Callable[[str], str] = str
    """What people are told of a place below them."""
    silent: bool = False
    """One of many trials: no line an epoch."""
    chosen: Chosen | None = None
    """What the data has chosen of ``model`` and ``training``, for the bundle to tell."""

    @property
    def validates(self) -> bool:
        """Whether it needs validation rows: to stop early, or to be calibrated where no other model's calibrator is
        there to be kept."""
        calibrates = self.training.calibration is not None and self.warm_start is None
        return self.training.patience is not None or calibrates

    @property
    def learned(self) -> Learned | None:
        """What the model will have learned from, the warm start's line included; None where that does not tell."""
        before = Learned() if self.warm_start is None else self.warm_start.learned
        return None if before is None else before | self.data.learned

    @property
    def line(self) -> int | None:
        """Rows that a model which goes on from another one has learned from in the end, each counted once; None for a
        model that starts anew."""
        if self.warm_start is None:
            return None
        return UNTOLD * self.data.train.rows if self.learned is None else self.learned.total

    @property
    def request(self) -> str:
        """Digest of what decides the result: all but ranks, threads and, at a constant rate, the number of epochs."""
        beside = {"threads", "cache_mb", "verify_checksums", "timeout_seconds", "restarts", "checkpoint"}
        if self.training.schedule == "constant":
            beside.add("epochs")
        training = {key: value for key, value in self.training.digested().items() if key not in beside}
        files = [[file.identity for file in split.files] for split in (self.data.train, self.data.valid)]
        warm = [self.warm_start.digest, self.line] if self.warm_start else None
        what = [self.model.model_dump(), training, self.data.spec.digest, files, warm]
        return digest_of(what)


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
