"""Settings left out of a config: fixed priors and what the data choose, against the best of a search by validation.

    for name in movielens criteo avazu talkingdata; do fieldwise features --config configs/$name.yaml; done
    python benchmarks/defaults.py --configs configs/movielens.yaml configs/criteo.yaml --trials 32

The config's own settings of training are left out. All three are trained with the same seeds. ``logloss`` is of the
test rows, by seed; ``automatic - fixed`` and ``automatic - searched`` are differences on the same rows, mean over the
seeds, with 95 % intervals over rows (`training.evaluation.paired`). The search resumes where it stopped. ``ctr`` is the
logloss of always predicting the training rows' mean label.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.record import RESULTS, record  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.pipelines.ranks.launch import Days  # noqa: E402
from fieldwise.pipelines.train.compare import measure  # noqa: E402
from fieldwise.pipelines.train.sweep import sweep  # noqa: E402
from fieldwise.pipelines.train.train import open_days  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.evaluation.paired import Comparison, Sums  # noqa: E402
from fieldwise.training.loop.automatic import automatic  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.network.bundle import load_bundle  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402

KINDS, SEEDS = ("fixed", "automatic", "searched"), 101


def main() -> None:
    options = parse()
    file = RESULTS / "defaults.json"
    known = json.loads(file.read_text())["figures"]["results"] if options.add and file.exists() else {}
    for config in map(load_config, options.configs):
        known[config.name] = compare(config, options)
        record("defaults", {"trials": options.trials, "seeds": options.seeds, "results": known})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["configs/movielens.yaml"], help="features must be built")
    parser.add_argument("--kinds", default="lr,poly2,fm,ffm")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each setting")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="to the configs that the results file has")
    return parser.parse_args()


def compare(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Test logloss of every kind of model on one config's data, by kind of settings."""
    kinds = options.kinds.split(",")
    bare = config.model_copy(update={"training": TrainingConfig(threads=options.threads)})
    data = open_days(bare, Days())
    chosen = sweep(bare, trials=options.trials, kinds=kinds, name="defaults")["chosen"]
    rate, base = data.test.positives / data.test.rows, data.train.positives / data.train.rows
    ctr = -rate * math.log(base) - (1 - rate) * math.log(1 - base)
    say(f"\n{config.name}: {data.train.rows:,} training, {data.test.rows:,} test rows; ctr {ctr:.5f}")
    rows = {kind: measured(kind, chosen[kind]["set"], bare, data, options) for kind in kinds}
    return {"rows": data.train.rows, "test_rows": data.test.rows, "ctr": ctr, "kinds": rows}


def measured(
    kind: str, searched: dict[str, Any], config: Config, data: TrainData, options: argparse.Namespace
) -> dict[str, Any]:
    """All seeds of one kind of model."""
    parts: dict[str, dict[str, Any]] = {"model": {"kind": kind}, "training": {"threads": options.threads}}
    for key, value in searched.items():
        part, name = key.split(".")
        parts[part][name] = value
    found: dict[str, Any] = {"logloss": {name: [] for name in KINDS}, "searched": searched, "automatic": []}
    total: dict[str, Sums] = {}
    for seed in range(SEEDS, SEEDS + options.seeds):
        with tempfile.TemporaryDirectory(prefix="fieldwise-defaults-") as place:
            open_ = TrainRun(data, ModelConfig(kind=kind), TrainingConfig(threads=options.threads, seed=seed), "")
            automatically = automatic(open_, World())
            found["automatic"].append(automatically.chosen and automatically.chosen.model_dump())
            settled = ModelConfig(**parts["model"]), TrainingConfig(**parts["training"], seed=seed)
            fixed = replace(open_, training=open_.training.model_copy(update={"auto": False}))
            runs = (fixed, automatically, TrainRun(data, *settled, ""))
            for name, run in zip(KINDS, runs, strict=True):
                train(replace(run, bundle_dir=f"{place}/{name}"), World())
            beside = measure({name: load_bundle(f"{place}/{name}") for name in KINDS}, data.test, config)
        for name in KINDS:
            found["logloss"][name].append(beside.evaluations[name].values["logloss"])
            total[name] = total[name] + beside.sums[name] if name in total else beside.sums[name]
    for other in ("fixed", "searched"):
        gap = Comparison(total[other], total["automatic"]).difference("logloss", 0.975)
        found[f"automatic - {other}"] = gap.told
        found[f"automatic / {other}"] = float(np.mean(found["logloss"]["automatic"]) / np.mean(found["logloss"][other]))
        say(f"  {kind:6} automatic - {other:8} {gap}")
    shown = "".join(f"  {name} {np.mean(of):.5f} +- {np.std(of):.5f}" for name, of in found["logloss"].items())
    say(f"  {kind:6}{shown}")
    return found


if __name__ == "__main__":
    main()
