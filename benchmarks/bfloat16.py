"""Does a table in bfloat16 cost accuracy? Test logloss beside float32's, same data, settings and seeds.

    python benchmarks/bfloat16.py --configs movielens demo --models fm ffm

``difference`` is bfloat16 / float32 - 1 of the mean over seeds, ``spread`` the standard deviation over float32's seeds
relative to their mean; ``ctr`` is the logloss of always predicting the training rows' mean label.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose scripts would hide packages

from benchmarks.record import record  # noqa: E402
from benchmarks.time_to_quality import prepared  # noqa: E402
from fieldwise.training.config import ModelConfig  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["movielens", "demo"])
    parser.add_argument("--models", nargs="+", default=["fm", "ffm"])
    parser.add_argument("--optimizers", nargs="+", default=["adagrad", "rowwise_adagrad"])
    parser.add_argument("--rows", type=int, default=350_000, help="of the demo's log")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    options = parse()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fieldwise-bfloat16-") as work:
        os.environ["FIELDWISE_WORK"] = work
        for name in options.configs:
            config, data = prepared(name, options.rows)
            mean, rate = data.test.positives / data.test.rows, data.train.positives / data.train.rows
            ctr = -(mean * np.log(rate) + (1 - mean) * np.log(1 - rate))
            for kind in options.models:
                for optimizer in options.optimizers:
                    row: dict[str, Any] = {"config": name, "model": kind, "optimizer": optimizer, "ctr": round(ctr, 5)}
                    for table in ("float32", "bfloat16"):
                        row[table] = []
                        for seed in range(options.seeds):
                            update = {"table": table, "optimizer": optimizer, "seed": seed}
                            training = config.training.model_copy(update=update)
                            run = TrainRun(data, ModelConfig(kind=kind), training, f"{work}/bundle")
                            row[table].append(train(run, World()).evaluations["test"].values["logloss"])
                    full, half = (statistics.mean(row[table]) for table in ("float32", "bfloat16"))
                    row["difference"] = round(half / full - 1, 6)
                    row["spread"] = round(statistics.stdev(row["float32"]) / full, 6)
                    found.append(row)
                    print(row, file=sys.stderr)
    worst = max(row["difference"] for row in found)
    record("bfloat16", {"seeds": options.seeds, "trainings": found, "worst": worst})


if __name__ == "__main__":
    main()
