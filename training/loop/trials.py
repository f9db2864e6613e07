"""Trials of settings, and their record: a search that was killed does not train them again."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.store.kept import read_record, write_record
from fieldwise.features.terminal import say
from fieldwise.training.loop.run import TrainRun


@dataclass(frozen=True)
class Point:
    """Factors on what `settle` gives, and the dim."""

    learning_rate: float = 1.0
    l2: float = 1.0
    dim: int = 0
    """0 for a model that has none."""

    def moved(self, name: str, factor: float) -> Point:
        value: Any = getattr(self, name) * factor
        value = max(1, round(value)) if name == "dim" else float(f"{value:.6g}")
        return replace(self, **{name: value})


@dataclass(frozen=True)
class Trial:
    """What a point came to."""

    sample: int
    """Training rows."""
    point: Point
    losses: tuple[float, ...]
    """Validation logloss by epoch; none where training diverged."""
    rows: int
    """That passed through it."""
    free: bool = True
    """It was not given up for being behind another one."""
    blocks: tuple[Any, ...] = ()
    """Of the epoch with the lowest loss, what `ClusteredLoss` took."""

    @property
    def valid(self) -> float:
        """The lowest loss; infinite where there is none."""
        return min(self.losses, default=math.inf)

    @property
    def epochs(self) -> int:
        """Until then."""
        return 1 + self.losses.index(self.valid) if self.losses else 0

    @staticmethod
    def from_json(value: dict[str, Any]) -> Trial:
        point, losses, blocks = Point(**value["point"]), tuple(value["losses"]), tuple(value["blocks"])
        np.asarray(blocks, np.float64)  # ValueError for what is no array of numbers
        return Trial(value["sample"], point, losses, value["rows"], value["free"], blocks)


class Kept:
    """Trials on disk, by rank 0 alone: a search that was killed does not train them again."""

    def __init__(self, run: TrainRun) -> None:
        self.path = None if run.checkpoint_dir is None else store.join(run.checkpoint_dir, "settings.json")
        self.request, self._saved = run.request, run.saved

    def read(self) -> list[Trial]:
        """Of a search for the same; none, with a word on stderr, where the file is damaged."""
        if self.path is None:
            return []
        try:
            record = read_record(self.path, "trials of settings", "It is written anew.", newer=("trials",))
            if record is None or record["request"] != self.request:
                return []
            return [Trial.from_json(value) for value in record["trials"]]
        except (ArtifactError, KeyError, TypeError, ValueError) as error:
            say(f"trials passed over: {error}")
            return []

    def write(self, trials: Sequence[Trial]) -> None:
        if self.path is not None:
            store.make_dir(os.path.dirname(self.path))
            write_record(self.path, {"request": self.request, "trials": [asdict(trial) for trial in trials]})
            self._saved()
