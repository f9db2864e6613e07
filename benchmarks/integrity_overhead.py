"""What the proofs cost: training with and without them in turn, and how long a checkpoint holds training up.

    python benchmarks/integrity_overhead.py --rows 400000 --repeats 5

With: SHA-256 of every file on first read, order digests of all rows, rows counted, replicas compared. Without: the same
training with those taken out. Five epochs; checksums are compared in the first only. Medians of the repeats.
"""

# mypy: disable-error-code="attr-defined,assignment"
from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

from benchmarks.record import record  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.reader import PlanReader  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop import trainer as trainer_module  # noqa: E402
from fieldwise.training.loop.checkpoint import Checkpoints  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import Trainer  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402
from tests.snapshots import hash_spec, write_snapshot  # noqa: E402

FIELDS, EPOCHS = 20, 5


class NoDigest:
    """In the place of a reader's digest."""

    def update(self, data: Any) -> None: ...

    def hexdigest(self) -> str:
        return ""


class Unproved(PlanReader):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.digest = NoDigest()


def seconds(directory: str, kind: str, place: Path, proved: bool) -> float:
    """Wall seconds of the epochs, evaluation and bundle left out."""
    config = TrainingConfig(epochs=EPOCHS, patience=None, verify_checksums=proved)
    data = TrainData.of_one(load_snapshot(directory))
    kept = trainer_module.PlanReader, trainer_module.require_all_rows, trainer_module.require_equal_replicas
    if not proved:
        trainer_module.PlanReader = Unproved
        trainer_module.require_all_rows = trainer_module.require_equal_replicas = lambda *_: None
    try:
        trainer = Trainer(TrainRun(data, ModelConfig(kind=kind), config, str(place / "bundle")), World())
        started = time.perf_counter()
        with trainer.network.passes(trainer._readers(0, 0), trainer.seen) as works:
            for epoch in range(EPOCHS):
                trainer._end_epoch(plan := trainer._plan(epoch), trainer._train_epoch(plan, works), works)
        return time.perf_counter() - started
    finally:
        trainer_module.PlanReader, trainer_module.require_all_rows, trainer_module.require_equal_replicas = kept


def checkpoint(directory: str, kind: str, place: Path) -> dict[str, float]:
    """Seconds that saving holds training up, table and optimizer state of a trained model."""
    data = TrainData.of_one(load_snapshot(directory))
    trainer = Trainer(TrainRun(data, ModelConfig(kind=kind), TrainingConfig(patience=None), str(place)), World())
    trainer.checkpoints = Checkpoints(place / "checkpoints", "request")
    with trainer.network.passes(trainer._readers(0, 0)) as works:
        trainer._train_epoch(trainer._plan(0), works)
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        trainer._save()
        spent.append(time.perf_counter() - started)
    size = sum(path.stat().st_size for path in (place / "checkpoints").glob("state-*")) / 2
    minutes = TrainingConfig().checkpoint.every_minutes or 10.0
    return {
        "seconds": statistics.median(spent),
        "bytes": size,
        "percent_of_time": 100 * statistics.median(spent) / (60 * minutes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--kinds", nargs="+", default=["lr", "ffm"])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fieldwise-overhead-") as folder:
        place, files = Path(folder), [65536] * (options.rows // 65536) + [options.rows % 65536 or 1]
        snapshot = write_snapshot(place / "snapshot", hash_spec([50_000] * FIELDS), {"train": files})
        for kind in options.kinds:
            spent: dict[bool, list[float]] = {True: [], False: []}
            for repeat in range(options.repeats + 1):
                for proved in (True, False) if repeat % 2 else (False, True):
                    took = seconds(snapshot.dir, kind, place, proved)
                    if repeat:  # the first compiles
                        spent[proved].append(took)
            with_, without = (statistics.median(spent[proved]) for proved in (True, False))
            found[kind] = {
                "seconds_with": spent[True],
                "seconds_without": spent[False],
                "overhead_percent": 100 * (with_ / without - 1),
                "checkpoint": checkpoint(snapshot.dir, kind, place / kind),
            }
            print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
    record("integrity_overhead", {"rows": options.rows, "fields": FIELDS, "epochs": EPOCHS, **found})


if __name__ == "__main__":
    main()
