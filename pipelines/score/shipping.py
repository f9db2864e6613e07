"""A model on its way to tasks: files that every machine gets once and every process maps into memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldwise.features.engine.base import Engine
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.settings import ModelSettings
from fieldwise.training.network.calibration import Isotonic, Platt

if TYPE_CHECKING:  # torch
    from fieldwise.training.network.bundle import Bundle

TABLE = "weights.npy"

_OPENED: dict[str, Any] = {}
"""What this process has opened, of the model in use."""
_OPENING = threading.RLock()
"""Tasks may be threads; what one of them opens may open more."""


@dataclass(frozen=True)
class Shipped:
    """A model without its table, and where files lie."""

    place: Callable[[str], Path]
    """Of a file by its name, on the machine of a task."""
    prefix: str
    """Before every file's name: unique, because Spark keeps files of all jobs together."""
    cores: int
    """That a task has."""
    apart: bool
    """Whether tasks have processes of their own."""
    settings: ModelSettings
    layout: Layout
    dense: dict[str, npt.NDArray[np.float32]]
    logit_shift: float
    calibrator: Platt | Isotonic | None

    def path(self, name: str) -> Path:
        """A shipped file, on this machine."""
        return self.place(self.prefix + name)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once in this process while it works with this model."""
        with _OPENING:
            if _OPENED.get("prefix") != self.prefix:
                _OPENED.clear()
                _OPENED["prefix"] = self.prefix
            if name not in _OPENED:
                _OPENED[name] = make()
            return _OPENED[name]

    def scorer(self) -> Any:
        """A `training.scoring.scorer.Scorer` over the mapped table, for the cores of this task; one per process."""
        return self.once("scorer", self._opened)

    def _opened(self) -> Any:
        import torch

        from fieldwise.training.scoring.scorer import PlainWeights, Scorer

        if self.apart:
            torch.set_num_threads(self.cores)
            gc.freeze()  # Spark's workers collect garbage after every task: let them leave torch's modules out
        table = np.load(self.path(TABLE), mmap_mode="r", allow_pickle=False)
        return Scorer(PlainWeights(self.settings, self.layout, table, self.dense, self.logit_shift, self.calibrator))


class Shipment:
    """Files in a directory of the driver, named ``prefix + name``, and the model's table among them."""

    def __init__(self, engine: Engine, bundle: Bundle, directory: str, prefix: str) -> None:
        self._engine, self._bundle, self.directory, self.prefix = engine, bundle, directory, prefix
        np.save(self.path(TABLE), bundle.weight, allow_pickle=False)

    def path(self, name: str) -> Path:
        return Path(self.directory, self.prefix + name)

    def send(self, names: Iterable[str] = ()) -> Shipped:
        """Make the table and further files known to tasks."""
        bundle = self._bundle
        return Shipped(
            place=self._engine.send(self.directory, [self.prefix + name for name in (TABLE, *names)]),
            prefix=self.prefix,
            cores=self._engine.task_cores,
            apart=self._engine.apart,
            settings=bundle.settings,
            layout=bundle.layout,
            dense=bundle.dense,
            logit_shift=bundle.logit_shift,
            calibrator=bundle.calibrator,
        )
