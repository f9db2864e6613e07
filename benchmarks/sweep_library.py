"""Would a library's search find better settings than our random draws, at the same number of trials? Optuna's TPE.

    pip install --target DIR optuna        # no dependency of the product
    PYTHONPATH=DIR python benchmarks/sweep_library.py --logs 6 8 12 16 --kind fm

Both search the ranges of ``training/loop/search.py`` by the validation logloss of whole trainings, on planted logs for
development whose truth is known (benchmarks/planted_logs.py). For each log, seed and number of trials: ``excess`` over
the truth of the trial that is best by validation so far, and its validation logloss. Goal: TPE's excess is lower by
more than 1 % in the median.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna  # type: ignore[import-not-found]  # no dependency of ours

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, whose scripts would hide packages

from benchmarks.automatic import fit  # noqa: E402
from benchmarks.planted_logs import planted_log  # noqa: E402
from benchmarks.record import record  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop import search  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.models import MODELS  # noqa: E402

Found = dict[str, Any]
Train = Callable[[ModelConfig, TrainingConfig], Found]
WORST = 10.0
"""Logloss that TPE is told of a trial that diverged."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, nargs="+", default=[6, 8, 12, 16])
    parser.add_argument("--kind", default="fm")
    parser.add_argument("--trials", type=int, nargs="+", default=[8, 16, 32], help="numbers at which to compare")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    base = TrainingConfig(threads=options.threads)
    logs: Found = {}
    for number in options.logs:
        log = planted_log(number)
        with tempfile.TemporaryDirectory(prefix="fieldwise-library-") as place:
            data = TrainData.of_one(load_snapshot(log.publish(Path(place) / "all")))

            def trained(model: ModelConfig, training: TrainingConfig, log: Any = log, data: Any = data) -> Found:
                return fit(log, TrainRun(data, model, training, ""))

            logs[str(number)] = {
                str(seed): {
                    "random": told(by_draws(options.kind, seed, max(options.trials), base, trained), options.trials),
                    "tpe": told(by_tpe(options.kind, seed, max(options.trials), base, trained), options.trials),
                }
                for seed in options.seeds
            }
        say(f"log {number}: {logs[str(number)]}")
    found = {"optuna": optuna.__version__, "kind": options.kind, "logs": logs, "tpe / random": ratios(logs)}
    record("sweep_library", found)


def by_draws(kind: str, seed: int, trials: int, base: TrainingConfig, train: Train) -> list[Found]:
    """What `fieldwise sweep` trains."""
    return [train(*search.draw(kind, seed, number, base)) for number in range(trials)]


def by_tpe(kind: str, seed: int, trials: int, base: TrainingConfig, train: Train) -> list[Found]:
    """The same ranges; each optimizer has a learning rate of its own, as the draws have."""
    found: list[Found] = []

    def objective(trial: optuna.Trial) -> float:
        optimizer = trial.suggest_categorical("optimizer", list(search.LEARNING_RATE))
        rate = search.LEARNING_RATE[optimizer]
        drawn = {
            "optimizer": optimizer,
            "learning_rate": trial.suggest_float(f"learning_rate_{optimizer}", rate.low, rate.high, log=True),
            "l2": trial.suggest_float("l2", search.L2.low, search.L2.high, log=True),
            "epochs": search.EPOCHS,
        }
        model: Found = {"kind": kind}
        if MODELS[kind].latent:
            share = trial.suggest_categorical("dim", search.DIM)
            scale = search.INIT_SCALE
            model["dim"] = max(1, round(MODELS[kind].default_dim * share))
            model["init_scale"] = trial.suggest_float("init_scale", scale.low, scale.high, log=True)
        training = TrainingConfig.model_validate(base.model_dump() | drawn)
        found.append(train(ModelConfig.model_validate(model), training))
        return min(float(found[-1]["valid"]), WORST)

    optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed)).optimize(objective, n_trials=trials)
    return found


def told(trials: list[Found], counts: list[int]) -> Found:
    """The best by validation of the first so many trials."""
    best = {count: min(range(count), key=lambda number: trials[number]["valid"]) for count in counts}
    shown = {
        str(count): {"trial": number, **{key: trials[number][key] for key in ("valid", "excess")}}
        for count, number in best.items()
    }
    return {**shown, "epochs": sum(one.get("ran", 0) for one in trials), "seconds": sum(t["seconds"] for t in trials)}


def ratios(logs: Found) -> Found:
    """TPE's excess over that of the draws, and the same of validation logloss, by number of trials."""
    pairs = [each for seeds in logs.values() for each in seeds.values()]
    found: Found = {}
    for count in (key for key in pairs[0]["tpe"] if key.isdigit()):
        for what in ("excess", "valid"):
            each = [pair["tpe"][count][what] / pair["random"][count][what] for pair in pairs]
            found[f"{what} after {count}"] = {
                "median": float(np.median(each)), "best": min(each), "worst": max(each), "pairs": len(each),
            }  # fmt: skip
    for what in ("epochs", "seconds"):
        found[what] = float(np.median([pair["tpe"][what] / pair["random"][what] for pair in pairs]))
    return found


if __name__ == "__main__":
    main()
