"""Is the memory that training states before the start what it then takes?

    python benchmarks/train_memory.py --models ffm-4 --table-rows 1048576 4194304 --ranks 1 2

Every training runs in processes of its own, from a snapshot on disk (benchmarks/rows.py); ``ratio`` is the highest
memory over the stated figure (goal: 0.8 to 1.2): of one rank what the system counted as resident, of several the sum of
what they held at a time (PSS, looked at twice a second), which counts their one table once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose scripts would hide packages

from benchmarks.features import watch_memory  # noqa: E402
from benchmarks.record import record  # noqa: E402
from benchmarks.rows import field_sizes, labels_of, long_tailed, publish  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ffm-4"], help="kind-dim")
    parser.add_argument("--table-rows", nargs="+", type=int, default=[1 << 20, 1 << 22])
    parser.add_argument("--optimizers", nargs="+", default=["adagrad", "rowwise_adagrad"])
    parser.add_argument("--tables", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rows", type=int, default=1 << 18)
    parser.add_argument("--fields", type=int, default=39)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


def be_training(snapshot: str, model: str, optimizer: str, table: str, bundle: str) -> None:
    """State, train, and print both figures."""
    from fieldwise.features.snapshot.manifest import load_snapshot
    from fieldwise.training.config import ModelConfig, TrainingConfig
    from fieldwise.training.data.splits import TrainData
    from fieldwise.training.loop.memory import needed, peak
    from fieldwise.training.loop.run import TrainRun
    from fieldwise.training.loop.trainer import train
    from fieldwise.training.ranks.world import join_world

    kind, _, dim = model.partition("-")
    data, config = TrainData.of([load_snapshot(snapshot)]), ModelConfig(kind=kind, dim=int(dim))
    training = TrainingConfig.model_validate({"epochs": 2, "patience": None, "optimizer": optimizer, "table": table})
    with join_world() as world:
        stated = needed(data, config, training, world.size, world.use_threads(None), world.ranks_on_host)
        train(TrainRun(data, config, training, bundle), world)
        if world.first:
            print(stated, file=sys.stderr)
            Path(f"{bundle}.json").write_text(json.dumps({"stated": stated.total, "peak": peak()}))


def measure(ranks: int, arguments: list[str], bundle: str) -> dict[str, Any]:
    """Stated and highest memory, bytes, of a training on so many ranks."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"] if ranks > 1 else []
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    training = subprocess.Popen([sys.executable, *start, __file__, "--one", *arguments, bundle], env=environment)
    stop, held = threading.Event(), dict[str, float]()
    watcher = threading.Thread(target=watch_memory, args=(training.pid, None, stop, held))
    if ranks > 1:
        watcher.start()
    code = training.wait()
    stop.set()
    if code:
        raise SystemExit(f"training exited with {code}")
    figures: dict[str, Any] = json.loads(Path(f"{bundle}.json").read_text())
    if ranks > 1:
        watcher.join()
        figures["peak"] = round(held["workers"] * 2**20)  # the ranks, without the launcher
    return {"ranks": ranks, **figures}


def main() -> None:
    options = parse()
    if options.one:
        be_training(*options.one)
        return
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fieldwise-bench-") as folder:
        for table_rows in options.table_rows:
            sizes = field_sizes(options.fields, table_rows)
            slots = long_tailed(sizes, options.rows)
            snapshot = publish(Path(folder) / str(table_rows), sizes, slots, labels_of(sizes, slots))
            for model, optimizer, table, ranks in product(
                options.models, options.optimizers, options.tables, options.ranks
            ):
                row = {"model": model, "table_rows": table_rows, "optimizer": optimizer, "table": table}
                row |= measure(ranks, [snapshot, model, optimizer, table], f"{folder}/bundle")
                row["ratio"] = round(row["peak"] / row["stated"], 3)
                found.append(row)
                print(row, file=sys.stderr)
    record("train_memory", {"rows": options.rows, "fields": options.fields, "trainings": found})


if __name__ == "__main__":
    main()
