"""Are the defaults good? A config that names only data and model.kind, against the best of a search chosen on valid.

    fieldwise features --config configs/movielens.yaml
    python benchmarks/defaults.py --configs configs/movielens.yaml --trials 32

Both are trained with the same seeds; the figure is the ratio of their mean test logloss (goal: at most 1.01). The
search resumes where it stopped. ``ctr`` is the logloss of always predicting the training rows' mean label.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.record import record  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.pipelines.ranks.launch import Days  # noqa: E402
from fieldwise.pipelines.train.sweep import sweep  # noqa: E402
from fieldwise.pipelines.train.train import open_days  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402


def main() -> None:
    options = parse()
    results = {config.name: compare(config, options) for config in map(load_config, options.configs)}
    worst = max(row["ratio"] for of in results.values() for row in of["kinds"].values())
    record("defaults", {"trials": options.trials, "seeds": options.seeds, "results": results, "worst_ratio": worst})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["configs/movielens.yaml"], help="features must be built")
    parser.add_argument("--kinds", default="lr,poly2,fm,ffm")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each setting")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def compare(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Default and searched test logloss of every kind on one config's data; its own training settings are left out."""
    kinds = options.kinds.split(",")
    bare = config.model_copy(update={"training": TrainingConfig(threads=options.threads)})
    data = open_days(bare, Days())
    chosen = sweep(bare, trials=options.trials, kinds=kinds, name="defaults")["chosen"]
    rate, base = data.test.positives / data.test.rows, data.train.positives / data.train.rows
    ctr = -rate * math.log(base) - (1 - rate) * math.log(1 - base)
    say(f"\n{config.name}: {data.train.rows:,} training rows; ctr {ctr:.5f}")
    say(f"{'model':8}{'default':>20}{'searched':>20}{'ratio':>9}")
    rows = {}
    for kind in kinds:
        default = losses(data, {"model.kind": kind}, options)
        searched = losses(data, {"model.kind": kind, **chosen[kind]["set"]}, options)
        ratio = float(np.mean(default) / np.mean(searched))
        shown = "".join(f"{np.mean(of):13.5f}±{np.std(of):.4f}" for of in (default, searched))
        say(f"{kind:8}{shown}{ratio:9.4f}")
        rows[kind] = {"default": default, "searched": searched, "ratio": ratio, "set": chosen[kind]["set"]}
    return {"rows": data.train.rows, "ctr": ctr, "kinds": rows}


def losses(data: TrainData, keys: dict[str, Any], options: argparse.Namespace) -> list[float]:
    """Test logloss by seed."""
    parts: dict[str, dict[str, Any]] = {"model": {}, "training": {"threads": options.threads}}
    for key, value in keys.items():
        part, name = key.split(".")
        parts[part][name] = value
    found = []
    for seed in range(101, 101 + options.seeds):
        with tempfile.TemporaryDirectory(prefix="fieldwise-defaults-") as place:
            training = TrainingConfig(**parts["training"], seed=seed)
            run = TrainRun(data, ModelConfig(**parts["model"]), training, f"{place}/bundle")
            found.append(train(run, World()).evaluations["test"].values["logloss"])
    return found


if __name__ == "__main__":
    main()
