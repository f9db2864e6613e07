"""Days that are poisoned in twelve ways, each on a healthy stream, through ``fieldwise daily`` with default settings.

    python benchmarks/poisonings.py

A planted shop (benchmarks/streams.py) runs for some days; then one day's log is poisoned, and the day after is healthy
again. By poisoning: what the day was refused with, whether its rows reached a champion or a challenger, whether its
lists are there, and whether the next day went through without a person and left it out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402
from benchmarks.streams import shop  # noqa: E402
from fieldwise.features import store  # noqa: E402
from fieldwise.features.errors import FieldwiseError, InputError, RefusedError  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.pipelines.cycle.bootstrap import bootstrap  # noqa: E402
from fieldwise.pipelines.cycle.daily import run_day  # noqa: E402
from fieldwise.pipelines.registry import open_model  # noqa: E402

Log = pd.DataFrame
FIRST, HEALTHY = 6, 4
"""Days of the first model; of the cycle before the poisoned one."""


def flipped(log: Log, draw: np.random.Generator) -> Log:
    return log.assign(click=1 - log["click"])


def positives_times(factor: float) -> Callable[[Log, np.random.Generator], Log]:
    def more(log: Log, draw: np.random.Generator) -> Log:
        share = min(1.0, (factor - 1) * log["click"].mean() / (1 - log["click"].mean()))
        return log.assign(click=np.where(draw.random(len(log)) < share, 1, log["click"]))

    return more


def shifted(delta: pd.Timedelta) -> Callable[[Log, np.random.Generator], Log]:
    def later(log: Log, draw: np.random.Generator) -> Log:
        moved = pd.to_datetime(log["timestamp"]) + delta
        return log.assign(timestamp=moved.dt.strftime("%Y-%m-%d %H:%M:%S"))

    return later


POISONS: dict[str, Callable[[Log, np.random.Generator], Log | str]] = {
    "labels flipped": flipped,
    "a field emptied": lambda log, draw: log.assign(device=""),
    "prices x1000": lambda log, draw: log.assign(price=log["price"] * 1000),
    "all ids unseen": lambda log, draw: log.assign(user="x" + log["user"], item="x" + log["item"]),
    "rows duplicated": lambda log, draw: pd.concat([log, log, log]),
    "positive rate x3": positives_times(3),
    "positive rate x100": positives_times(100),
    "clock +7 h": shifted(pd.Timedelta(hours=7)),
    "last year's timestamps": shifted(pd.Timedelta(days=-365)),
    "one class": lambda log, draw: log.assign(click=0),
    "empty": lambda log, draw: "",
    "cut file": lambda log, draw: "cut",
    "column gone": lambda log, draw: log.drop(columns="device"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="of a day")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_MASTER", "local[2]")
    with tempfile.TemporaryDirectory(prefix="fieldwise-poisons-") as place:
        folder = Path(place) / "shop"
        file, days = healthy(folder, options.rows)
        config = load_config(file, [])
        bootstrap(config, first=days[0], last=days[FIRST - 1])
        for day in days[FIRST : FIRST + HEALTHY]:
            run_day(config, date=day)
        day, after = days[FIRST + HEALTHY :]
        found = {}
        for number, (name, poison) in enumerate(POISONS.items()):
            copy = Path(place) / f"poisoned{number}" / "shop"  # MLflow keeps connections to databases that are gone
            shutil.copytree(folder, copy)
            write(copy / "log" / f"{day}.csv", poison, name)
            found[name] = outcome(load_config(copy / "stream.yaml", []), day, after)
            say(f"{name}: {found[name]}")
            shutil.rmtree(copy.parent)
    reached = [name for name, each in found.items() if each["promoted"] or each["learned"]]
    record("poisonings", {"rows": options.rows, "poisonings": found, "reached": reached})


def healthy(folder: Path, rows: int) -> tuple[str, list[str]]:
    """The shop with prices in its log, and a catalog, so that there are lists."""
    file, days = shop(folder, drifting=False, days=FIRST + HEALTHY + 2, rows_per_day=rows)
    items = pd.read_csv(folder / "items.csv")
    for day in days:
        log = pd.read_csv(folder / "log" / f"{day}.csv").merge(items[["item", "price"]], on="item", how="left")
        log.to_csv(folder / "log" / f"{day}.csv", index=False)
    items.drop(columns="price").to_csv(folder / "items.csv", index=False)
    items.to_csv(folder / "catalog.csv", index=False)
    document = yaml.safe_load(Path(file).read_text())
    document["catalog"] = {"contexts": {"path": "users.csv"}, "context_id": "user", "items": {"path": "catalog.csv"},
                           "item_id": "item", "k": 5, "time": "{date}T19:00:00",
                           "fixed": {"position": 1, "device": "phone"}}  # fmt: skip
    document["training"] = {"epochs": 6, "learning_rate": 0.05}
    Path(file).write_text(yaml.safe_dump(document))
    return file, days


def write(path: Path, poison: Callable[[Log, np.random.Generator], Log | str], name: str) -> None:
    changed = poison(pd.read_csv(path), np.random.default_rng(len(name)))
    if isinstance(changed, str):
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 3] if changed else b"")
    else:
        changed.to_csv(path, index=False)


def outcome(config: Config, day: str, after: str) -> dict[str, Any]:
    before = open_model(None, config).version
    told, decision = "", None
    try:
        decision = run_day(config, date=day)["decision"]
    except (InputError, RefusedError) as error:
        told = f"exit code {error.exit_code}: {error.found}"
    promoted = open_model(None, config).version != before
    lists = store.join(config.workspace_dir, "scores", "catalog", f"date={day}")
    there = any(name.endswith(".parquet") for name in store.list_sizes(lists))
    try:
        next_day = run_day(config, date=after)
        learned, through = day in next_day["learned"], True
    except FieldwiseError as error:
        learned, through = False, False
        told += f"; the next day: {error}"
    return {"decision": decision, "named": told, "promoted": promoted, "learned": learned, "lists": there,
            "next_day_done": through}  # fmt: skip


if __name__ == "__main__":
    main()
