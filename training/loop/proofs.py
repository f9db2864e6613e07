"""What a run proves as it goes, or stops: all rows once, equal replicas, finite losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from fieldwise.features.errors import DivergedError, IntegrityError
from fieldwise.features.terminal import say
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.files import DataFile, name_rows
from fieldwise.training.data.plan import Plan
from fieldwise.training.loop.progress import Progress
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World

SLOW = 1.5
"""A rank that takes so many times as long as the others is worth a warning ..."""
SLOW_SECONDS = 60.0
"""... but not after every epoch: epochs may be short, and there may be thousands."""


def require_all_rows(progress: Progress, planned: int) -> None:
    """rows planned = rows read = rows trained, over all ranks and resumes of the epoch."""
    if not planned == progress.rows_read == progress.rows_trained:
        raise IntegrityError(
            f"epoch {progress.epoch + 1}",
            expected=f"{planned} rows as planned",
            found=f"{progress.rows_read} rows read, {progress.rows_trained} trained",
            fix="Verify the snapshot's checksums; if they hold, report this as a defect.",
        )


def require_equal_replicas(network: Network, world: World, epoch: int) -> None:
    """Every rank holds the same bits, of which one table that they have together is no matter."""
    if world.size == 1:
        return
    digest = xxhash.xxh3_64(b"" if network.table.shared else network.table.weight.cpu().view(torch.uint8).numpy().data)
    for _, value in sorted(network.dense().items()):
        digest.update(value.data)
    digests = world.gather(digest.hexdigest())
    apart = [rank for rank, value in enumerate(digests) if value != digests[0]]
    if apart:
        raise IntegrityError(
            f"epoch {epoch + 1}",
            expected="the same weights on every rank",
            found=f"ranks {apart} apart from rank 0",
            fix="Check that all hosts run the same packages on the same kind of processor.",
        )


def warn_of_straggler(busy: npt.NDArray[np.float64], progress: Progress, world: World) -> bool:
    """Name a rank whose own work takes more than ``SLOW`` times that of the others' median; whether there was one.

    ``busy`` [ranks]: seconds of the epoch's steps, since the last resume; see ``training.step.exchange``.
    """
    slowest = int(busy.argmax())
    others = float(np.median(np.delete(busy, slowest))) if world.size > 1 else math.inf
    slow = bool(world.first and busy[slowest] > SLOW * others)
    if slow:
        each, usual = (seconds / max(progress.step, 1) for seconds in (busy[slowest], others))
        say(
            f"rank {slowest} is slow: {each:.4f} s per step in epoch {progress.epoch + 1} against {usual:.4f} s of the "
            "others, who wait for it. Look at what else its machine does, and at its disk."
        )
    return slow


def diverged(
    progress: Progress,
    world: World,
    files: Sequence[DataFile],
    plan: Plan,
    batch: Batch,
    logits: Tensor,
) -> DivergedError:
    """The error of a step whose loss is not finite. Every rank sees the same loss, so all call this together."""
    bad = ~np.isfinite(logits.cpu().numpy()) | ~np.isfinite(batch.label)
    if batch.weight is not None:
        bad |= ~np.isfinite(batch.weight)
    mine = name_rows(files, plan, batch.origin, np.flatnonzero(bad))
    where = [name for names in world.gather(mine) for name in names]
    return DivergedError(
        f"epoch {progress.epoch + 1}, step {progress.step + 1}",
        expected="a finite loss",
        found=f"inf or nan in {'; '.join(where) or 'the sum of the batch'}",
        fix="Lower training.learning_rate, or look at these rows' weights.",
    )
