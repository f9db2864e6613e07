"""Seconds to the plain torch reference's best validation logloss: compiled kernels beside the reference, in one run.

    python benchmarks/time_to_quality.py --configs movielens demo --models fm ffm

Both train the same config with the same seed, in turns, ``--repeats`` times; a training's clock runs from its start to
the end of the first epoch whose validation logloss is within 1e-4 of the reference's best (relative: the two round
differently), validations included; figures are medians. ``ratio`` is reference / kernels (goals: 5 for fm, 10 for ffm).
``steps_ratio`` compares the seconds of their training steps alone. Both have trained an epoch before: kernels are
compiled, torch is warm.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose scripts would hide packages

from benchmarks.record import record  # noqa: E402
from fieldwise.features.engine.local import LocalEngine  # noqa: E402
from fieldwise.pipelines.build.features import build_features  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.pipelines.demo.shop import Shop, generate  # noqa: E402
from fieldwise.pipelines.ranks.launch import Days  # noqa: E402
from fieldwise.pipelines.train.train import open_days  # noqa: E402
from fieldwise.training.config import ModelConfig  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402

TOLERANCE = 1e-4
GOALS = {"fm": 5, "ffm": 10}


class Curve:
    """A tracker that notes when which validation logloss was reached, and the seconds of training steps until then."""

    def __init__(self) -> None:
        self.start = 0.0
        self.points: list[tuple[float, float, float]] = []

    def params(self, values: Mapping[str, Any]) -> None:
        self.start = time.perf_counter()

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        if "seconds" in values:  # an epoch's, not the final ones
            steps = values["seconds"] + (self.points[-1][1] if self.points else 0.0)
            self.points.append((time.perf_counter() - self.start, steps, values["valid_logloss"]))

    @property
    def best(self) -> float:
        return min(point[2] for point in self.points)

    def reaches(self, target: float) -> tuple[float, float]:
        """Seconds, and seconds of steps, until the target; infinite when it was not reached."""
        return next((point[:2] for point in self.points if point[2] <= target), (float("inf"),) * 2)


def curve(config: Config, data: TrainData, kind: str, place: str, **training: Any) -> Curve:
    found = Curve()
    settings = config.training.model_copy(update=training)
    train(TrainRun(data, ModelConfig(kind=kind), settings, f"{place}/bundle", tracker=found), World())
    return found


def prepared(name: str, rows: int) -> tuple[Config, TrainData]:
    """A shipped config with its features built in the workspace; the demo's log is made first."""
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    if name == "demo":
        generate(LocalEngine(), Shop(rows, 42), os.path.dirname(os.path.dirname(config.source.path[0])))
    build_features(config, replace=True)
    return config, open_days(config, Days())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["movielens", "demo"])
    parser.add_argument("--models", nargs="+", default=["fm", "ffm"])
    parser.add_argument("--rows", type=int, default=350_000, help="of the demo's log")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="at most; default: the config's")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="fieldwise-quality-") as work:
        os.environ["FIELDWISE_WORK"] = work
        for name in options.configs:
            config, data = prepared(name, options.rows)
            epochs = options.epochs or config.training.epochs
            for kind in options.models:
                for fused in (True, False):
                    curve(config, data, kind, work, epochs=1, fused=fused)
                curves: dict[bool, list[Curve]] = {True: [], False: []}
                for _ in range(options.repeats):
                    for fused, found in curves.items():
                        found.append(curve(config, data, kind, work, epochs=epochs, fused=fused))
                reference = curves[False][0]  # the same losses every time
                target = reference.best * (1 + TOLERANCE)
                ours, theirs = (
                    [statistics.median(part) for part in zip(*(one.reaches(target) for one in found), strict=True)]
                    for found in curves.values()
                )
                row = {
                    "config": name, "model": kind, "train_rows": data.train.rows, "best": reference.best,
                    "kernels_seconds": round(ours[0], 2), "reference_seconds": round(theirs[0], 2),
                    "ratio": round(theirs[0] / ours[0], 2), "steps_ratio": round(theirs[1] / ours[1], 2),
                    "goal": GOALS.get(kind),
                    **{name: [one.points for one in curves[fused]]
                       for name, fused in (("kernels", True), ("reference", False))},
                }  # fmt: skip
                print(
                    {key: value for key, value in row.items() if key not in ("kernels", "reference")}, file=sys.stderr
                )
                rows.append(row)
    record("time_to_quality", {"tolerance": TOLERANCE, "trainings": rows})


if __name__ == "__main__":
    main()
