"""Whether daily training helps: whole streams of days through ``bootstrap`` and ``daily``, as shipped.

    FIELDWISE_DATA=../data python benchmarks/daily_streams.py --streams shop drift movielens-week

Streams: MovieLens 100K by day and by week, a planted shop that stays as it is (nothing to gain but more rows), one
whose tastes turn and whose items are replaced (benchmarks/streams.py). Every date's rows are predicted by models that
have not seen them. Logloss over all dates but the first ones, which the first model is made of:

never     the first model, for ever
daily     the champion of each date, by ``fieldwise daily`` with default settings
scratch   trained anew for every date on all days before it, for as many epochs as the first model: the ceiling

``difference`` is against ``never``, with its standard error over dates.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402
from benchmarks.streams import movielens, shop  # noqa: E402
from fieldwise.features.errors import InputError, RefusedError  # noqa: E402
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot, snapshot_dir  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.pipelines.cycle.bootstrap import bootstrap  # noqa: E402
from fieldwise.pipelines.cycle.daily import run_day  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.evaluation.evaluate import evaluate  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.network.bundle import Bundle, load_bundle  # noqa: E402
from fieldwise.training.network.network import Network  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402

FIRST = {"movielens-day": 100, "movielens-week": 12, "shop": 8, "drift": 8}
"""Days that the first model is made of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", default=list(FIRST), choices=list(FIRST))
    parser.add_argument("--days", type=int, default=24, help="dates of each stream")
    parser.add_argument("--rows", type=int, default=5000, help="rows of a day of the shops")
    parser.add_argument("--seed", type=int, default=7, help="of the shops: others than those that rules were chosen on")
    parser.add_argument("--kind", default="ffm", help="the model")
    parser.add_argument("--name", default="daily_streams", help="of the file of results")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_MASTER", "local[2]")
    found = {}
    for name in options.streams:
        with tempfile.TemporaryDirectory(prefix="fieldwise-streams-") as folder:
            found[name] = replay(name, Path(folder) / name, options)
            say(*_table(name, found[name]))
    kept = {"days": options.days, "rows": options.rows, "seed": options.seed, "kind": options.kind}
    record(options.name, {**kept, "streams": found})


def replay(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    first = FIRST[name]
    if name.startswith("movielens"):
        data = Path(os.environ.get("FIELDWISE_DATA", "../data"))
        file, days = movielens(folder, data, step=7 if name.endswith("week") else 1)
    else:
        file, days = shop(folder, drifting=name == "drift", days=first + options.days, rows_per_day=options.rows,
                          seed=options.seed)  # fmt: skip
    config = load_config(file, [f"model.kind={options.kind}"])
    made = bootstrap(config, first=days[0], last=days[first - 1])
    days = days[: first + options.days]
    dates = [_date(config, date) for date in days[first:]]
    opening = load_bundle(made["bundle"])
    snapshots = {day: load_snapshot(snapshot_dir(config.workspace_dir, day)) for day in days}
    for row in dates:
        row["never"] = measured(opening, snapshots[row["date"]])
        past = [snapshots[day] for day in days[: days.index(row["date"])]]
        row["scratch"] = measured(anew(config, past, made["best_epoch"], folder / "scratch"), snapshots[row["date"]])
    weight = np.array([row["rows"] for row in dates], np.float64)
    loss = {name: np.array([row[name] for row in dates]) for name in ("never", "daily", "scratch")}
    total = {name: float(weight @ values / weight.sum()) for name, values in loss.items()}
    gap = loss["daily"] - loss["never"]
    error = float(np.sqrt((weight**2 * (gap - total["daily"] + total["never"]) ** 2).sum()) / weight.sum())
    closed = (total["never"] - total["daily"]) / (total["never"] - total["scratch"])
    seconds = float(np.median([row.pop("seconds") for row in dates]))
    return {"logloss": total, "difference": total["daily"] - total["never"], "se": error, "share_closed": closed,
            "seconds_a_date": seconds, "dates": dates}  # fmt: skip


def _date(config: Config, date: str) -> dict[str, Any]:
    """What ``daily`` did, and the logloss of the champion that it met."""
    started = time.perf_counter()
    try:
        done = run_day(config, date=date)
        told = {key: done[key] for key in ("decision", "findings", "champion", "challenger")}
        champion, challenger = done["metrics"]["champion"], done["metrics"]["challenger"] or {}
        told |= {"daily": champion["logloss"], "of_challenger": challenger.get("logloss"), "rows": champion["rows"]}
    except (InputError, RefusedError) as error:
        from fieldwise.pipelines.registry import open_model

        manifest = load_snapshot(snapshot_dir(config.workspace_dir, date))
        told = {"decision": "suspicious", "findings": [str(error)], "rows": manifest.manifest.rows_of(["all"])}
        told["daily"] = measured(open_model(None, config).bundle, manifest)
    return {"date": date, **told, "seconds": time.perf_counter() - started}


def measured(bundle: Bundle, snapshot: Snapshot) -> float:
    split = TrainData.of([], [], [snapshot]).test
    return float(evaluate(Network.from_bundle(bundle), split, World()).values["logloss"])


def anew(config: Config, days: list[Snapshot], epochs: int, place: Path) -> Bundle:
    settings = config.training.model_copy(update={"epochs": epochs, "patience": None})
    train(TrainRun(TrainData.of(days), config.model, settings, str(place)), World())
    return load_bundle(place)


def _table(name: str, found: dict[str, Any]) -> list[str]:
    total = found["logloss"]
    lines = [
        f"{name}: never {total['never']:.5f}, daily {total['daily']:.5f}, scratch {total['scratch']:.5f}; "
        f"daily - never {found['difference']:+.5f} +- {found['se']:.5f}, {found['share_closed']:.0%} of the distance"
    ]
    for row in found["dates"]:
        lines.append(f"  {row['date']}  {row['decision']:<10} never {row['never']:.5f}  daily {row['daily']:.5f}  "
                     f"scratch {row['scratch']:.5f}  {'; '.join(row['findings'])[:120]}")  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
