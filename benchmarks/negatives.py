"""A log of positives with negatives drawn, against a plain build of as many rows: raw files to a published snapshot.

    python benchmarks/negatives.py --positives 1000000 --rounds 3

The log of positives has user, age, item and moment; items have a category and a price; ``--per-positive`` items are
drawn for each row by popularity^0.75, none that its user has. The plain log has as many rows as that makes, with
category and price in each, and labels of its own. Both lie in ``--files`` csv files, have the same fields and the same
split, and are built in turns in one session that has built a fiftieth of each before.

negatives_rows_per_s, plain_rows_per_s     medians over the rounds, of published rows
share                                      the first over the second; goal: at least 0.5
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402
from fieldwise.features.spark.session import spark_session  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.build.features import build_features  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402

KINDS = ("negatives", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positives", type=int, default=1_000_000)
    parser.add_argument("--per-positive", type=int, default=4)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault("SPARK_MASTER", f"local[{options.cores}]")
    spark_session("benchmark")
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    rows: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="fieldwise-negatives-") as folder:
        for share in (50, 1):
            place = Path(folder, str(share))
            write(place, options.positives // share, options)
            for number in range(options.rounds if share == 1 else 1):
                for kind in KINDS:
                    started = time.perf_counter()
                    found = build_features(load_config(place / f"{kind}.yaml", [f"workspace={place}/{kind}{number}"]))
                    if share == 1:
                        seconds[kind].append(time.perf_counter() - started)
                        rows[kind] = sum(found["rows"].values())
                        say(f"{kind}: {rows[kind] / seconds[kind][-1]:,.0f} rows/s")
    pace = {kind: rows[kind] / statistics.median(seconds[kind]) for kind in KINDS}
    sizes = {key: value for key, value in vars(options).items() if key != "rounds"}
    record("negatives", {
        **sizes, "rows": rows, "seconds": seconds, "negatives_rows_per_s": pace["negatives"],
        "plain_rows_per_s": pace["plain"], "share": pace["negatives"] / pace["plain"],
    })  # fmt: skip


def write(folder: Path, positives: int, options: argparse.Namespace) -> None:
    """Both logs, the items, and a config of each."""
    draw = np.random.default_rng(0)
    category, price = draw.integers(0, 40, options.items), draw.integers(100, 99_999, options.items)
    folder.mkdir()
    items = {"item": np.arange(options.items), "category": category, "price": price}
    pyarrow.csv.write_csv(pa.table(items), folder / "items.csv")
    for kind, rows in (("negatives", positives), ("plain", positives * (1 + options.per_positive))):
        (folder / kind).mkdir()
        for number in range(options.files):
            n = rows * (number + 1) // options.files - rows * number // options.files
            user, item = draw.integers(0, options.users, n), (options.items * draw.random(n) ** 2).astype(np.int64)
            columns: dict[str, Any] = {"user": user, "age": 15 + user % 70, "item": item}
            if kind == "plain":
                columns |= {"category": category[item], "price": price[item]}
            columns |= {"when": 1_750_000_000 + draw.integers(0, 864_000, n), "bought": np.ones(n, np.int64)}
            if kind == "plain":
                columns["bought"] = draw.integers(0, 1 + options.per_positive, n) // options.per_positive
            pyarrow.csv.write_csv(pa.table(columns), folder / kind / f"{number}.csv")
        document = {
            "name": kind, "source": {"path": f"{kind}/*.csv"}, "label": "bought", "time": "when",
            "split": {"by": "time", "valid": 0.1, "test": 0.1}, "model": {"kind": "fm"},
            "fields": [{"name": "user", "kind": "hash", "buckets": 1 << 18}, {"name": "item", "kind": "vocabulary"},
                       {"name": "age", "kind": "number", "quantiles": 10}, {"name": "category", "kind": "vocabulary"},
                       {"name": "price", "kind": "number", "quantiles": 10},
                       {"name": "hour", "kind": "time", "part": "hour"}],
        }  # fmt: skip
        if kind == "negatives":
            drawn = {"items": {"path": "items.csv"}, "context": "user", "item": "item"}
            document |= {"negatives": drawn | {"per_positive": options.per_positive},
                         "join": [{"path": "items.csv", "on": "item"}]}  # fmt: skip
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(document))


if __name__ == "__main__":
    main()
