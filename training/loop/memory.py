"""What a training needs in memory, told before it takes any of it.

The table, its optimizer state and a copy of the best weights (``rows * columns * 4`` bytes each, weights in bfloat16
half of that), and of every rank a map over all rows that finds distinct ones, the files it keeps between epochs
(``cache_mb``), batches and files in flight, a step's gradients, and what the process holds already. A rank on a GPU
keeps table, state and gradients there.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.batch import layout_of
from fieldwise.training.data.reader import files_ahead
from fieldwise.training.data.splits import TrainData
from fieldwise.training.models import resolved
from fieldwise.training.models.base import build_model
from fieldwise.training.models.layout import slot_pairs
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.lookup import can_be_direct, columns_apart, lanes_of
from fieldwise.training.step.optim import OPTIMIZERS
from fieldwise.training.threads import SUMMED, parts_of

_FLOAT = _INT = 4
_DISTINCT = 1 / 6
"""Distinct table rows of a batch by its values, about, in click logs."""
_BATCHES, _FILES = 6, 4
"""In flight between reader and step; files between decoding and being put into order."""


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for: of a rank, and of the ranks of one host."""

    rows: int
    width: int
    table: int
    state: int
    best: int
    """The best weights, or what the bundle's float32 takes beyond the state, in whose place they come at the end."""
    lookup: int
    reading: int
    step: int
    process: int
    numbers: str = "float32"
    """Of the table."""
    ranks: int = 1
    """On the host."""
    one_table: bool = False
    """Whether table, state and best are there once for all of them."""

    @property
    def total(self) -> int:
        """Of the host's ranks."""
        weights, own = self.table + self.state + self.best, self.lookup + self.reading + self.step + self.process
        return weights * (1 if self.one_table else self.ranks) + own * self.ranks

    def __str__(self) -> str:
        weights, own = (
            ", ".join(f"{name} {getattr(self, name) / 1e6:,.0f}" for name in names)
            for names in (("table", "state", "best"), ("lookup", "reading", "step", "process"))
        )
        ranks, between = "", ", "
        if self.ranks > 1:
            ranks, between = f" for {self.ranks} ranks", " in all; each " if self.one_table else " each, and "
        shown = f"{weights}{between}{own}"
        return (
            f"memory: {self.total / 1e6:,.0f} MB{ranks} ({shown}); table of {self.rows:,} x {self.width} {self.numbers}"
        )


def needed(
    data: TrainData, model: ModelConfig, training: TrainingConfig, ranks: int = 1, threads: int = 1, here: int = 1
) -> Memory:
    """Memory at its peak of the ``here`` of ``ranks`` ranks that run on this host, of ``threads`` threads each.

    ConfigError as `resolved` raises it.
    """
    layout, settings = layout_of(data.spec), resolved(model)
    network = build_model(settings, layout, fused=training.fused)
    one_table = ranks == here > 1 and FusedStep.serves(network, torch.device("cpu"), ranks)
    rows, width, optimizer = network.rows, network.width, OPTIMIZERS[training.optimizer]
    table = rows * width * (2 if training.table == "bfloat16" else _FLOAT)
    state = rows * optimizer.state_width(width) * len(optimizer.states) * _FLOAT
    batch = -(-training.batch_size // ranks)
    columns = layout.slots + (len(slot_pairs(layout)[0]) if network.kind.paired else 0)
    distinct = min(int(batch * columns * _DISTINCT), rows)
    files = sorted((file.rows for file in data.train.files), reverse=True)
    held = 2 * -(-training.streams // ranks) - 1 + files_ahead(data.train.files, layout.slots) + _FILES
    direct = ranks == 1 and FusedStep.serves(network, torch.device("cpu"))
    direct = direct and can_be_direct(layout, width, network.pair_buckets, batch, threads)
    beside = lanes_of(columns_apart(layout, network.pair_buckets), batch, threads) if direct else 0
    row = (layout.slots + 1 + data.train.weighted) * _INT
    kept = min(training.cache_mb * 10**6, (data.train.rows + data.valid.rows) * row)
    gradients = distinct * width * _FLOAT * threads * (1 + (batch > parts_of(threads) * SUMMED))
    return Memory(
        rows=rows,
        width=width,
        table=table,
        state=state,
        best=max(table, rows * width * _FLOAT - state),
        lookup=rows * _INT * (3 if one_table else 2 if ranks > 1 else 1 + beside),
        reading=sum(files[:held]) * row + kept,
        step=_BATCHES * batch * (layout.slots + columns) * _INT + gradients * (1 if ranks == 1 or one_table else 3),
        process=resident(),
        numbers=training.table,
        ranks=here,
        one_table=one_table,
    )


def resident() -> int:
    """Bytes of memory that this process holds; the most it ever held where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak()


def peak() -> int:
    """The most bytes of memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
