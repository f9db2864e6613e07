"""Rows per second of training from a snapshot on disk: the trainer as jobs run it, beside what its parts allow.

    python benchmarks/train_end_to_end.py --rows 1048576 --models lr poly2 fm-16 ffm-4 --vw-python vw/bin/python

Data: benchmarks/rows.py, written as feature jobs write it. In one run and for each model and batch size:

    kernel    rows/s of lookup and step on an epoch's batches prepared in memory (benchmarks/train_step.py), before and
              after; of as many rows as the trainer's, since fewer would find more of the table in the cache
    reader    core-seconds per row of Petastorm and the plan's batches alone, all threads
    bound     1 / (1 / kernel + reader / cores)
    trainer   rows/s of its epochs, the first left out (it compiles and verifies checksums); nothing is kept
              from epoch to epoch (``cache_mb: 0``), so every row comes from disk

Each is the best of its repeats, because other users of a machine only ever slow it down; ``trainer_median`` is the
median epoch. ``share`` is trainer / bound (goal: 0.9). ``epoch`` counts what lies between the epochs too: the proofs,
and keeping the best weights.

Vowpal Wabbit (another virtual environment's Python with the package vowpalwabbit) learns the first
``--vw-rows`` of the same rows from text, linear and with all pairs, reading included; lr and poly2 are its equals here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, whose scripts would hide packages

from benchmarks.record import record  # noqa: E402
from benchmarks.rows import Slots, field_sizes, labels_of, long_tailed, publish  # noqa: E402
from benchmarks.train_step import bandwidth, measure  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.cache import Seen  # noqa: E402
from fieldwise.training.data.plan import Plan  # noqa: E402
from fieldwise.training.data.reader import PlanReader  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402

FEWER = {"poly2": 8, "ffm": 2}
"""Share of the files that a slow model is trained on."""
SPACES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lr", "poly2", "fm-16", "ffm-4"], help="kind or kind-dim")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[4096, 16384])
    parser.add_argument("--rows", type=int, default=1 << 21, help="of the snapshot")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--fields", type=int, default=39)
    parser.add_argument("--table-rows", type=int, default=1 << 20)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--vw-python", help="Python with the package vowpalwabbit; default: leave it out")
    parser.add_argument("--vw-rows", type=int, default=200_000)
    return parser.parse_args()


class Clock:
    """A tracker that notes when epochs end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def params(self, values: Mapping[str, Any]) -> None:
        self.times.append(time.perf_counter())

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.times.append(time.perf_counter())


def read(data: TrainData, batch: int) -> float:
    """Core-seconds per row of reading an epoch, all threads; the least of three."""
    seen = Seen(verify=True)
    seconds = []
    for epoch in range(3):
        start = time.process_time()
        plan = Plan([file.rows for file in data.train.files], batch_size=batch, epoch=epoch)
        for _ in PlanReader(data.train.files, plan, range(plan.streams), data.spec.slot_names).read(seen):
            pass
        seconds.append(time.process_time() - start)
    return min(seconds) / data.train.rows


def whole(data: TrainData, name: str, batch: int, options: argparse.Namespace, place: Path) -> dict[str, int]:
    """Rows/s of the trainer's epochs but the first: of its steps, and between the ends of epochs."""
    kind, _, dim = name.partition("-")
    clock = Clock()
    training = TrainingConfig(
        epochs=options.epochs, batch_size=batch, patience=None, threads=options.threads, cache_mb=0
    )
    run = TrainRun(data, ModelConfig(kind=kind, dim=int(dim) if dim else None), training, str(place), tracker=clock)
    result = train(run, World())
    epochs = np.diff(clock.times[: options.epochs + 1])[1:]
    steps = [past.seconds for past in result.history[1:]]
    seconds = {"trainer": min(steps), "trainer_median": float(np.median(steps)), "epoch": float(min(epochs))}
    return {name: round(data.train.rows / taken) for name, taken in seconds.items()}


def write_text(slots: Slots, labels: np.ndarray, path: Path) -> None:
    """Vowpal Wabbit's format: one namespace a field."""
    columns = [pa.array(np.where(labels > 0, "1", "-1"))]
    columns += [
        pc.binary_join_element_wise(f"|{SPACES[f]}", pc.cast(pa.array(slots[:, f]), "string"), " ")
        for f in range(slots.shape[1])
    ]
    path.write_text("\n".join(pc.binary_join_element_wise(*columns, " ").to_pylist()) + "\n")


def vowpal(python: str, text: Path, rows: int, *more: str) -> float:
    """Rows/s of one pass, start of the process left out."""
    seconds = []
    for count in (1, rows):
        start = time.perf_counter()
        command = [python, "-m", "vowpalwabbit", "-d", str(text), "-b", "20", "--loss_function", "logistic", "--quiet"]
        subprocess.run([*command, "--examples", str(count), *more], check=True)
        seconds.append(time.perf_counter() - start)
    return (rows - 1) / (seconds[1] - seconds[0])


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    sizes = field_sizes(options.fields, options.table_rows)
    slots = long_tailed(sizes, options.rows)
    labels = labels_of(sizes, slots)
    figures: dict[str, Any] = {
        "rows": options.rows, "fields": options.fields, "table_rows": options.table_rows, "threads": options.threads,
        "bandwidth_gb_per_second": bandwidth(options.threads), "models": [],
    }  # fmt: skip
    columns = ("model", "batch", "kernel", "reader_us", "bound", "trainer", "share", "epoch")
    print(" ".join(f"{name:>10}" for name in columns), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="fieldwise-bench-") as folder:
        place = Path(folder)
        for name in options.models:
            rows = options.rows // FEWER.get(name.partition("-")[0], 1)
            snapshot = place / f"snapshot-{rows}"
            if not snapshot.exists():
                publish(snapshot, sizes, slots[:rows], labels[:rows])
            data = TrainData.of([load_snapshot(str(snapshot))])
            for batch in options.batch_sizes:
                kernel_options = argparse.Namespace(
                    fields=options.fields, rows=options.table_rows, pair_buckets=1 << 20, optimizer="adagrad",
                    table="float32", threads=options.threads, batches=max(1, rows // batch), repeats=3,
                )  # fmt: skip
                kernel = measure(name, "step", batch, kernel_options)["best"]
                trained = whole(data, name, batch, options, place / "bundle")
                reader = read(data, batch)
                kernel = max(kernel, measure(name, "step", batch, kernel_options)["best"])
                bound = 1 / (1 / kernel + reader / options.threads)
                row = {
                    "model": name, "batch": batch, "rows": data.train.rows, "kernel": kernel,
                    "reader_us": round(1e6 * reader, 3), "bound": round(bound),
                    "share": round(trained["trainer"] / bound, 3), **trained,
                }  # fmt: skip
                figures["models"].append(row)
                print(" ".join(f"{row[name]!s:>10}" for name in columns), file=sys.stderr)
        if options.vw_python:
            rows = min(options.vw_rows, options.rows)
            write_text(slots[:rows], labels[:rows], place / "rows.txt")
            linear = vowpal(options.vw_python, place / "rows.txt", rows)
            pairs = vowpal(options.vw_python, place / "rows.txt", rows, "-q", "::")
            figures["vowpal_wabbit"] = {"rows": rows, "linear": round(linear), "quadratic": round(pairs)}
            print(f"vowpal wabbit rows/s: {figures['vowpal_wabbit']}", file=sys.stderr)
    record("train_end_to_end", figures)


if __name__ == "__main__":
    main()
