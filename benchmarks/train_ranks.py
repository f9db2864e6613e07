"""Two ranks of one thread each beside one rank of one thread: rows per second, bytes exchanged, and the same loss.

    python benchmarks/train_ranks.py --models fm-16 ffm-4 --batch 16384

Every run is a training as jobs start it, from a snapshot on disk (benchmarks/rows.py), the first epoch left out; so
rows come from memory where ``training.cache_mb`` holds them, with ``--cache-mb 0`` from disk in every epoch. Runs take
turns ``--repeats`` times, and a figure is their median. Two ranks have a global batch of twice ``--batch``.
``ratio`` compares them with one rank (goal: 1.5), ``loss`` is the largest relative difference of an epoch's loss from
one rank with the doubled batch (goal: 1e-5). A rank reads and looks rows up in threads of its own beside its one
compute thread; ``pinned`` runs confine every rank to one core, so that one rank and two have the same per rank.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose scripts would hide packages

from benchmarks.record import record  # noqa: E402
from benchmarks.rows import field_sizes, labels_of, long_tailed, publish  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["fm-16", "ffm-4"], help="kind or kind-dim")
    parser.add_argument("--batch", type=int, default=16384, help="rows of a step per rank")
    parser.add_argument("--rows", type=int, default=1 << 20)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fields", type=int, default=39)
    parser.add_argument("--table-rows", type=int, default=1 << 20)
    parser.add_argument("--cache-mb", type=int, help="rows kept between epochs; 0: from disk; default: training's own")
    parser.add_argument("--rank", nargs=2, metavar=("RUN", "RESULT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def be_rank(run: dict[str, Any], result_path: str) -> None:
    """One rank of a run; rank 0 writes what happened."""
    from fieldwise.features.snapshot.manifest import load_snapshot
    from fieldwise.training.config import ModelConfig, TrainingConfig
    from fieldwise.training.data.splits import TrainData
    from fieldwise.training.loop.run import TrainRun
    from fieldwise.training.loop.trainer import train
    from fieldwise.training.ranks.world import join_world

    if run["pinned"]:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ.get("LOCAL_RANK", "0"))]})
    kind, _, dim = run["model"].partition("-")
    cache = {} if run["cache_mb"] is None else {"cache_mb": run["cache_mb"]}
    training = TrainingConfig(epochs=run["epochs"], batch_size=run["batch"], patience=None, threads=1, **cache)
    data = TrainData.of([load_snapshot(run["snapshot"])])
    with join_world() as world:
        history = train(
            TrainRun(data, ModelConfig(kind=kind, dim=int(dim) if dim else None), training, run["bundle"]), world
        ).history
        if world.first:
            seconds = sorted(past.seconds for past in history[1:])
            figures = {
                "rows_per_second": round(data.train.rows / seconds[len(seconds) // 2]),
                "losses": [past.train_logloss for past in history],
                "bytes_per_step_and_rank": round(history[-1].exchanged_bytes / history[-1].steps / world.size),
            }
            Path(result_path).write_text(json.dumps(figures))


def launch(run: dict[str, Any], ranks: int, place: Path) -> dict[str, Any]:
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = place / "result.json"
    subprocess.run([*start, __file__, "--rank", json.dumps(run), str(result)], env=environment, check=True)
    figures: dict[str, Any] = json.loads(result.read_text())
    figures |= {"ranks": ranks, "batch": run["batch"], "pinned": run["pinned"]}
    print(run["model"], {key: value for key, value in figures.items() if key != "losses"}, file=sys.stderr)
    return figures


def compare(model: str, snapshot: str, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    common = {
        "model": model, "snapshot": snapshot, "bundle": str(place / "bundle"), "epochs": options.epochs,
        "cache_mb": options.cache_mb,
    }  # fmt: skip
    ways = {
        "one": (1, options.batch, False), "two": (2, 2 * options.batch, False),
        "one doubled": (1, 2 * options.batch, False),
        "one pinned": (1, options.batch, True), "two pinned": (2, 2 * options.batch, True),
    }  # fmt: skip
    runs: dict[str, dict[str, Any]] = {}
    for _ in range(options.repeats):
        for name, (ranks, batch, pinned) in ways.items():
            run = launch({**common, "batch": batch, "pinned": pinned}, ranks, place)
            runs.setdefault(name, run | {"measured": []})["measured"].append(run["rows_per_second"])
    for figures in runs.values():
        figures["rows_per_second"] = statistics.median(figures["measured"])
    ratio = {name: runs[f"two{name}"]["rows_per_second"] / runs[f"one{name}"]["rows_per_second"]
             for name in ("", " pinned")}  # fmt: skip
    apart = max(abs(a / b - 1) for a, b in zip(runs["two"]["losses"], runs["one doubled"]["losses"], strict=True))
    row = {"model": model, "ratio": round(ratio[""], 3), "ratio_pinned": round(ratio[" pinned"], 3), "loss": apart}
    print(row, file=sys.stderr)
    return row | {"runs": runs}


def main() -> None:
    options = parse()
    if options.rank:
        be_rank(json.loads(options.rank[0]), options.rank[1])
        return
    sizes = field_sizes(options.fields, options.table_rows)
    slots = long_tailed(sizes, options.rows)
    with tempfile.TemporaryDirectory(prefix="fieldwise-bench-") as folder:
        place = Path(folder)
        snapshot = publish(place / "snapshot", sizes, slots, labels_of(sizes, slots))
        models = [compare(model, snapshot, place, options) for model in options.models]
    record(
        "train_ranks", {"rows": options.rows, "fields": options.fields, "cache_mb": options.cache_mb, "models": models}
    )


if __name__ == "__main__":
    main()
