"""Automatic settings of FFM beside LIBFFM and xLearn on planted logs: their defaults, and the best of eight settings.

    python benchmarks/others.py --logs 5 11 17 --libffm DIR --xlearn DIR

DIR holds the built programs (`ffm-train` and `ffm-predict`; `xlearn_train` and `xlearn_predict`); one that is not given
is left out. All get the same rows of the same three roles and two threads. ``defaults`` are the program's own with the
validation rows for its early stopping; ``best of 8`` has the lowest validation logloss of rates x l2 x dims around
them, its seconds are those of all eight. ``excess`` is the expected test logloss over that of the true probabilities.
Seconds of the programs include reading text, as theirs do at every start; ours include the search, and reading.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, whose scripts would hide packages

from benchmarks.automatic import fit  # noqa: E402
from benchmarks.planted_logs import Log, planted_log  # noqa: E402
from benchmarks.record import record  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.automatic import automatic  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402

THREADS = 2
RATES, L2, DIMS = (0.05, 0.2), (2e-5, 2e-4), (4, 8)
Found = dict[str, Any]
Setting = tuple[float, float, int, bool]
"""Rate, l2, dim, and whether the program's own number of epochs is kept; else at most 50."""
Program = Callable[[Path, float, float, int, bool], None]
"""(folder, *setting): trains on train.txt with valid.txt, writes p-valid.txt and p-test.txt."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, nargs="+", default=[5, 11, 17])
    parser.add_argument("--libffm", type=Path)
    parser.add_argument("--xlearn", type=Path)
    options = parser.parse_args()
    programs = {name: made(getattr(options, name)) for name, made in PROGRAMS.items() if getattr(options, name)}
    logs = {}
    for number in options.logs:
        log = planted_log(number)
        logs[str(number)] = {"rows": log.rows, "fields": log.fields, "rate": log.rate} | compare(log, programs)
        record("others", {"threads": THREADS, "logs": logs})


def compare(log: Log, programs: dict[str, Program]) -> Found:
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="fieldwise-others-") as place:
        folder = Path(place)
        data = TrainData.of_one(load_snapshot(log.publish(folder / "all")))
        fit(log, TrainRun(data, ModelConfig(kind="ffm"), TrainingConfig(threads=THREADS, auto=False, epochs=1), ""))
        started = time.perf_counter()
        run = automatic(TrainRun(data, ModelConfig(kind="ffm"), TrainingConfig(threads=THREADS), ""), World())
        own = fit(log, run)
        found["fieldwise"] = own | {"seconds": round(time.perf_counter() - started, 2)}
        for role, rows in log.roles.items():
            write(log, rows, folder / f"{role}.txt")
        for name, program in programs.items():
            defaults = measured(log, program, folder, (0.2, 2e-5, 4, True))
            tried = [measured(log, program, folder, (*setting, False)) for setting in product(RATES, L2, DIMS)]
            best = min(tried, key=lambda one: one["valid"])
            seconds = sum(one["seconds"] for one in tried)
            found[name] = {"defaults": defaults, "best of 8": best | {"seconds": round(seconds, 2)}}
    say(f"log {log.number}: fieldwise {found['fieldwise']['excess']:.5f} in {found['fieldwise']['seconds']:.1f} s")
    for name in programs:
        for how, of in found[name].items():
            say(f"  {name:8} {how:10} {of['excess']:.5f} in {of['seconds']:.1f} s")
    return found


def write(log: Log, rows: Any, path: Path) -> None:
    """Rows as LIBFFM reads them: label, then field:feature:1."""
    first = np.r_[0, np.cumsum([size + 3 for size in log.sizes])[:-1]]
    with path.open("w") as file:
        for at in range(0, len(rows), 10_000):
            slots, labels = log.slots[rows[at : at + 10_000]] + first, log.label[rows[at : at + 10_000]]
            for label, row in zip(labels, slots, strict=True):
                file.write(f"{label:.0f} " + " ".join(f"{f}:{v}:1" for f, v in enumerate(row)) + "\n")


def measured(log: Log, program: Program, folder: Path, setting: Setting) -> Found:
    for role in ("valid", "test"):  # what fails with exit code 0 shall not pass for the one before
        (folder / f"p-{role}.txt").unlink(missing_ok=True)
    started = time.perf_counter()
    program(folder, *setting)
    seconds = time.perf_counter() - started
    valid, test = (
        np.clip(np.loadtxt(folder / f"p-{role}.txt"), 1e-7, 1 - 1e-7) for role in ("valid", "test")
    )  # fmt: skip
    labels = log.label[log.roles["valid"]]
    loss = -np.where(labels == 1, np.log(valid), np.log1p(-valid)).mean()
    return {
        "excess": log.excess((np.log(test) - np.log1p(-test)).astype(np.float32)), "valid": float(loss),
        "seconds": round(seconds, 2), **dict(zip(("rate", "l2", "dim"), setting, strict=False)),
    }  # fmt: skip


def called(folder: Path, *command: Any) -> None:
    own = {"USER": "nobody"} | os.environ  # xlearn asks for it
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=own, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit code {done.returncode}\n{done.stdout[-500:]}{done.stderr[-500:]}")


def libffm(programs: Path) -> Program:
    def run(folder: Path, rate: float, l2: float, dim: int, own: bool) -> None:
        (folder / "model").unlink(missing_ok=True)
        settings = ("-r", rate, "-l", l2, "-k", dim, "-s", THREADS, "-t", 15 if own else 50)
        called(folder, programs / "ffm-train", *settings, "-p", "valid.txt", "--auto-stop", "train.txt", "model")
        for role in ("valid", "test"):
            called(folder, programs / "ffm-predict", f"{role}.txt", "model", f"p-{role}.txt")

    return run


def xlearn(programs: Path) -> Program:
    def run(folder: Path, rate: float, l2: float, dim: int, own: bool) -> None:
        settings = (
            "-s",
            2,
            "-r",
            rate,
            "-b",
            l2,
            "-k",
            dim,
            "-nthread",
            THREADS,
            "-e",
            10 if own else 50,
        )
        called(folder, programs / "xlearn_train", "train.txt", *settings, "-v", "valid.txt", "-m", "model", "--no-bin")
        for role in ("valid", "test"):
            called(
                folder, programs / "xlearn_predict", f"{role}.txt", "model", "-o", f"p-{role}.txt", "--sigmoid",
                "-nthread", THREADS,
            )  # fmt: skip

    return run


PROGRAMS: dict[str, Callable[[Path], Program]] = {"libffm": libffm, "xlearn": xlearn}


if __name__ == "__main__":
    main()
