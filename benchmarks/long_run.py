"""Does a training's memory stay flat? Resident bytes after each of many epochs, at two sizes of data.

    python benchmarks/long_run.py --epochs 50 --rows 20000 80000

``growth_mib`` compares the median of the last ten epochs with that of epochs six to fifteen, when everything that is
made once has been made. Checkpoints are written throughout.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

from benchmarks.record import record  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.training.config import CheckpointConfig, ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.batches import Passes  # noqa: E402
from fieldwise.training.data.plan import Plan  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import Trainer  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402
from tests.snapshots import hash_spec, write_snapshot  # noqa: E402


class Watched(Trainer):
    """Notes resident memory and threads at each epoch's end."""

    resident: list[float]
    threads: list[int]

    def _end_epoch(self, plan: Plan, order_digests: list[str], works: Passes) -> None:
        super()._end_epoch(plan, order_digests, works)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident.append(pages * resource.getpagesize() / 2**20)
        self.threads.append(threading.active_count())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 80_000])
    options = parser.parse_args()
    found = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="fieldwise-long-") as folder:
            files = {"train": [5_000] * (rows // 5_000), "valid": [5_000]}
            snapshot = write_snapshot(Path(folder) / "snapshot", hash_spec([10_000] * 10), files)
            checkpoint = CheckpointConfig(every_steps=10, every_minutes=None)
            config = TrainingConfig(epochs=options.epochs, batch_size=1024, patience=None, checkpoint=checkpoint)
            data = TrainData.of_one(load_snapshot(snapshot.dir))
            run = TrainRun(data, ModelConfig(kind="fm"), config, f"{folder}/bundle", f"{folder}/checkpoints")
            trainer = Watched(run, World())
            trainer.resident, trainer.threads = [], []
            trainer.train()
            flat = [statistics.median(part) for part in (trainer.resident[5:15], trainer.resident[-10:])]
            found[rows] = {
                "resident_mib": [round(value, 1) for value in trainer.resident],
                "growth_mib": flat[1] - flat[0],
                "threads": sorted(set(trainer.threads)),
            }
            print(f"{rows} rows: growth {flat[1] - flat[0]:.1f} MiB at {flat[1]:.0f} MiB", file=sys.stderr, flush=True)
    record("long_run", {"epochs": options.epochs, "by_rows": found})


if __name__ == "__main__":
    main()
