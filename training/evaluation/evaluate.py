"""Metrics of a network over a split, shared among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fieldwise.features.arrays import Float32
from fieldwise.features.errors import DivergedError, IntegrityError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import require_weights
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.batches import Work
from fieldwise.training.data.cache import Seen
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.data.splits import Split
from fieldwise.training.evaluation.metrics import FEW, Curve, Metrics, Scores
from fieldwise.training.network.calibration import Isotonic, Platt, measured_logits
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World

_ROWS = 16384
"""Of a batch."""
Observer = Callable[[Batch, Float32], None]
"""Is told every batch with its logits."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics and their standard errors by name, the reliability curve, the ROC (false, true positive rates), precision
    by recall and how the logits lie, of one split."""

    rows: int
    positives: int
    values: dict[str, float]
    curve: Curve
    roc: tuple[list[float], list[float]]
    precision_recall: tuple[list[float], list[float]]
    """(recall, precision)"""
    scores: Scores

    @property
    def few(self) -> str:
        """A warning where a class has too few rows for metrics to say much; else empty."""
        fewest = min(self.positives, self.rows - self.positives)
        which = "positives" if fewest == self.positives else "negatives"
        return f"only {fewest} {which}: metrics say little" if fewest < FEW else ""

    def told(self) -> dict[str, float]:
        """What results say of it."""
        counts = {"rows": self.rows, "positives": self.positives}
        return counts | {name: float(value) for name, value in self.values.items()}


def scan(split: Split, spec: FeatureSpec, world: World, *, streams: int, beside: Sequence[str] = ()) -> PlanReader:
    """This rank's share of all rows, in order, with what is ``beside`` them."""
    plan = Plan([file.rows for file in split.files], batch_size=-(-_ROWS // streams) * streams, streams=streams,
                shuffle=False)  # fmt: skip
    return PlanReader(split.files, plan, plan.streams_of(world.rank, world.size), spec.slot_names,
                      beside=beside)  # fmt: skip


def evaluate(
    network: Network,
    split: Split,
    world: World,
    *,
    logit_shift: float = 0.0,
    calibrator: Platt | Isotonic | None = None,
    streams: int = 8,
    seen: Seen | None = None,
    observers: Sequence[Observer] = (),
    beside: Sequence[str] = (),
) -> Evaluation:
    """Score every row of the split once, `collect` and `measure`; observers are told what is ``beside`` the rows."""
    with network.passes([[scan(split, network.spec, world, streams=streams, beside=beside)]], seen) as works:
        found = collect(
            network, split, world, works, logit_shift=logit_shift, calibrator=calibrator, observers=observers
        )
    return measure(split, found)


def measure(split: Split, total: Metrics) -> Evaluation:
    """Metrics of what `collect` has found of a split. Raises InputError when a class has no weight."""
    if split.weighted:
        require_weights(split.role, *total.weights)
    return Evaluation(
        total.rows, total.positives, total.values(), total.reliability(20), total.roc(), total.precision_recall(),
        total.scores(),
    )  # fmt: skip


def collect(
    network: Network,
    split: Split,
    world: World,
    works: Iterable[Work],
    *,
    logit_shift: float = 0.0,
    calibrator: Platt | Isotonic | None = None,
    observers: Sequence[Observer] = (),
) -> Metrics:
    """What metrics of the network's calibrated logits follow from, of all ranks.

    Args:
        works: of this rank's `scan`.
        logit_shift, calibrator: the bundle's; see `measured_logits`.
        observers: are told each of this rank's batches with its calibrated logits.

    Raises IntegrityError when the rows read are not those the manifests promise, DivergedError for infinite logits.
    """
    metrics, overflows = Metrics(), 0
    for batch, compact in works:
        logits = measured_logits(network.score(compact), logit_shift, calibrator, downsampled=bool(split.negative_rate))
        finite = np.isfinite(logits)
        if finite.all():
            metrics.add(logits, batch.label, batch.weight)
            for observe in observers:
                observe(batch, logits)
        else:
            overflows += batch.rows - int(finite.sum())
    require_finite(split, world.sum(np.array([float(overflows)]))[0])  # together: no rank waits for one that stopped
    total = Metrics(world.sum(metrics.sums()))
    require_rows(split, total.rows)
    return total


def require_finite(split: Split, overflows: float) -> None:
    """DivergedError where logits overflowed."""
    if overflows > 0:
        raise DivergedError(
            f"split {split.role}",
            expected="finite logits",
            found="an overflow",
            fix="Training diverged: lower training.learning_rate, or raise training.l2.",
        )


def require_rows(split: Split, rows: int) -> None:
    """IntegrityError unless all of the split's rows were scored."""
    if rows != split.rows:
        raise IntegrityError(
            f"split {split.role}",
            expected=f"{split.rows} rows",
            found=f"{rows} rows scored",
            fix="Verify the snapshot.",
        )
