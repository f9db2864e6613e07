"""Do settings that the data chooses carry over? Planted logs whose truth is known: automatic, fixed priors, a search.

    python benchmarks/automatic.py --logs development --kinds lr fm
    python benchmarks/automatic.py --logs held-out --kinds lr fm ffm --trials 64

``excess`` is the expected test logloss over the best possible one, which is that of the true probabilities
(benchmarks/planted_logs.py). ``searched`` is the best by validation of so many random trials of `fieldwise sweep`, each
a whole training. Seconds of automatic settings (``search``) are those of the search alone; ``cpu`` are seconds of all
cores together, which count little of what others use the machine for. Logs that are done are kept in the
results file, and not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, whose scripts would hide packages

from benchmarks.planted_logs import DEVELOPMENT, HELD_OUT, Log, planted_log  # noqa: E402
from benchmarks.record import RESULTS, record  # noqa: E402
from fieldwise.features.errors import DivergedError  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.automatic import automatic  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.search import draw  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.network.bundle import load_bundle  # noqa: E402
from fieldwise.training.network.network import Network  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402

Found = dict[str, Any]


def main() -> None:
    options = parse()
    numbers = {"development": DEVELOPMENT, "held-out": HELD_OUT}.get(options.logs) or map(int, options.logs.split(","))
    name = f"automatic_{options.logs.replace('-', '_').replace(',', '_')}"
    file = RESULTS / f"{name}.json"
    known = json.loads(file.read_text())["figures"]["logs"] if file.exists() else {}
    for log in sorted((planted_log(number) for number in numbers), key=lambda log: log.rows * log.fields):
        if log.rows * log.fields > options.most:
            continue
        found = known.setdefault(str(log.number), {"rows": log.rows, "fields": log.fields, "rate": log.rate})
        wanted = "searched" if options.trials else "automatic"
        missing = [kind for kind in options.kinds if wanted not in found.get(kind, {})]
        if missing:
            with tempfile.TemporaryDirectory(prefix="fieldwise-automatic-") as place:
                data = TrainData.of_one(load_snapshot(log.publish(Path(place) / "all")))
                for kind in missing:
                    found[kind] = compare(log, data, kind, options)
        record(name, {"trials": options.trials, "logs": known, "summary": summary(known)})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", default="development", help="development, held-out, or numbers")
    parser.add_argument("--kinds", nargs="+", default=["lr", "fm", "ffm"])
    parser.add_argument("--trials", type=int, default=0, help="of the random search; 0: none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most", type=float, default=1e9, help="rows times fields: larger logs are left out")
    return parser.parse_args()


def compare(log: Log, data: TrainData, kind: str, options: argparse.Namespace) -> Found:
    """Excess of one kind with each kind of settings."""
    threads, model, world = options.threads, ModelConfig(kind=kind), World()
    fixed = fit(log, TrainRun(data, model, TrainingConfig(threads=threads, auto=False), ""))
    started, busy = time.perf_counter(), time.process_time()
    run = automatic(TrainRun(data, model, TrainingConfig(threads=threads), ""), world)
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    chosen = None if run.chosen is None else run.chosen.model_dump()
    of_search = {"search": round(seconds, 2), "search_cpu": round(cpu, 2), "chosen": chosen}
    found = {"fixed": fixed, "automatic": {**fit(log, run), **of_search}}
    if options.trials:
        own = [draw(kind, 1, number, TrainingConfig(threads=threads)) for number in range(options.trials)]
        trials = [fit(log, TrainRun(data, *each, "")) for each in own]
        best = min(range(len(trials)), key=lambda number: trials[number]["valid"])
        keys = ("optimizer", "learning_rate", "l2")
        settings = {key: getattr(own[best][1], key) for key in keys} | own[best][0].model_dump(exclude_none=True)
        seconds = sum(trial["seconds"] for trial in trials)
        found["searched"] = {**trials[best], "settings": settings, "search": round(seconds, 2)}
    shown = ", ".join(f"{name} {of['excess']:.5f} ({of['seconds']:.1f} s)" for name, of in found.items())
    say(f"log {log.number} ({log.rows:,} x {log.fields}) {kind}: {shown}")
    return found


def fit(log: Log, run: TrainRun) -> Found:
    """Train, and measure against the truth. A training that diverges is as bad as can be."""
    started, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="fieldwise-automatic-") as place:
        try:
            result = train(TrainRun(run.data, run.model, run.training, f"{place}/bundle"), World())
        except DivergedError:
            return {"excess": np.inf, "valid": np.inf, "epochs": 0, "seconds": time.perf_counter() - started}
        seconds, cpu = time.perf_counter() - started, time.process_time() - busy
        bundle = load_bundle(f"{place}/bundle")
        network = Network.from_bundle(bundle)
    test = log.slots[log.rows :]
    blocks = [network.logits(np.asfortranarray(test[at : at + 16384])) for at in range(0, len(test), 16384)]
    return {
        "excess": log.excess(np.concatenate(blocks) + np.float32(bundle.logit_shift)),
        "valid": result.evaluations["valid"].values["logloss"],
        "test": result.evaluations["test"].values["logloss"],
        "epochs": result.best_epoch + 1,
        "ran": len(result.history),
        "seconds": round(seconds, 2),
        "cpu": round(cpu, 2),
    }


def summary(logs: dict[str, Found]) -> Found:
    """By kind: ratios of excess over all logs."""
    found: Found = {}
    for kind in ("lr", "poly2", "fm", "ffm"):
        rows = [log[kind] for log in logs.values() if kind in log]
        for other in ("fixed", "searched"):
            ratios = [row["automatic"]["excess"] / row[other]["excess"] for row in rows if other in row]
            if ratios:
                found[f"{kind}: automatic / {other}"] = {
                    "logs": len(ratios), "median": float(np.median(ratios)), "best": min(ratios), "worst": max(ratios),
                }  # fmt: skip
    return found


if __name__ == "__main__":
    main()
