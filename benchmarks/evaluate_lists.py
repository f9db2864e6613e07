"""Published lists against what happened afterwards, from files to the result, beside the same join in plain Spark SQL.

    python benchmarks/evaluate_lists.py --lists 10000000 --events 10000000

Lists of ``--k`` items, long-tailed; events of as many contexts, one in four of an item of the context's list; a history
of a tenth of the events. All of it Parquet. The Spark session runs and has measured a hundredth of it.

rows_per_s             evaluate_lists as a whole: reading, all metrics at three lengths of three systems, slices
sql_rows_per_s         lists left-joined with distinct events by context and item, recall and NDCG at one length
peak_mb                largest memory of the executor, its JVM and Python workers together; also for a tenth of the rows
same                   whether recall of both is the same to 1e-9
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
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pyspark.sql import SparkSession  # noqa: E402
from pyspark.sql import functions as F  # noqa: E402

from benchmarks.record import record  # noqa: E402
from benchmarks.score_catalog import Peak  # noqa: E402
from fieldwise.features.spark.session import spark_session  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.lists.evaluate_lists import evaluate_lists  # noqa: E402

CUTOFFS = [10, 20, 100]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, default=10_000_000, help="rows of lists")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault("SPARK_MASTER", f"local[{options.cores}]")
    spark = spark_session("benchmark")
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = {}
        for share in (100, 10, 1):
            place = Path(folder, str(share))
            write_inputs(place, options.lists // share, options.events // share, options)
            figures = measure(spark, place) | {"peak_mb_at_a_tenth": figures.get("peak_mb")}
    sizes = {"lists": options.lists, "events": options.events, "items": options.items, "k": options.k}
    record("evaluate_lists", {**sizes, "cores": options.cores, **figures})


def write_inputs(folder: Path, lists: int, events: int, options: argparse.Namespace) -> None:
    """Contexts and items are numbers; an item's is the place in the order of popularity."""
    draw, contexts = np.random.default_rng(0), lists // options.k
    for name in ("lists", "after", "before"):
        (folder / name).mkdir(parents=True)
    step = 2000
    for begin in range(0, contexts, step):
        many = min(step, contexts - begin)
        listed = np.stack([draw.choice(options.items, options.k, replace=False) for _ in range(many)])
        owner = np.repeat(np.arange(begin, begin + many), options.k)
        rank = np.tile(np.arange(1, options.k + 1, dtype=np.int32), many)
        columns = {"context_id": owner, "rank": rank, "item_id": listed.ravel()}
        pq.write_table(pa.table(columns), folder / "lists" / f"{begin:08d}.parquet")
        wanted = events * many // contexts
        context = draw.integers(0, many, wanted)
        own = draw.random(wanted) < 0.25
        item = np.where(own, listed[context, draw.integers(0, options.k, wanted)], tail(draw, wanted, options.items))
        table = pa.table({"context": context + begin, "item": item})
        pq.write_table(table, folder / "after" / f"{begin:08d}.parquet")
    table = pa.table(
        {"context": draw.integers(0, contexts, events // 10), "item": tail(draw, events // 10, options.items)}
    )
    pq.write_table(table, folder / "before" / "all.parquet", row_group_size=1 << 20)
    every = np.arange(options.items)
    pq.write_table(pa.table({"item": every, "kind": every % 20}), folder / "items.parquet")
    pq.write_table(pa.table({"context": np.arange(contexts)}), folder / "contexts.parquet")

    def source(name: str) -> dict[str, Any]:
        return {"path": name, "format": "parquet"}

    document = {
        "name": "lists", "source": source("after"), "label": "item >= 0 and context >= 0",
        "fields": [{"name": "item", "kind": "hash", "buckets": 100}], "model": {"kind": "fm"},
        "catalog": {"contexts": source("contexts.parquet"), "items": source("items.parquet"), "context_id": "context",
                    "item_id": "item"},
        "lists": {"cutoffs": CUTOFFS, "events": source("after"), "history": source("before"), "item_slices": ["kind"]},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(document))


def tail(draw: np.random.Generator, n: int, items: int) -> Any:
    return (items * draw.random(n) ** 3).astype(np.int64)


def measure(spark: SparkSession, folder: Path) -> dict[str, Any]:
    rows = sum(pq.read_metadata(path).num_rows for name in ("lists", "after") for path in (folder / name).iterdir())
    with Peak() as peak:
        started = time.perf_counter()
        found = evaluate_lists(load_config(folder / "config.yaml"), lists=str(folder / "lists"))
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    recall = plain_sql(spark, folder)
    plain = time.perf_counter() - started
    ours = found["metrics"][f"recall@{CUTOFFS[0]}"]["lists"]["value"]
    say(f"{rows:,} rows: {rows / seconds:,.0f} a second, plain SQL {rows / plain:,.0f}, peak {peak.megabytes}")
    return {
        "rows": rows, "seconds": seconds, "rows_per_s": rows / seconds, "sql_rows_per_s": rows / plain,
        "over_sql": plain / seconds, "peak_mb": peak.megabytes, "same": abs(recall - ours) < 1e-9,
    }  # fmt: skip


def plain_sql(spark: SparkSession, folder: Path) -> float:
    """Mean recall; NDCG is computed with it."""
    k = CUTOFFS[0]
    lists = spark.read.parquet(str(folder / "lists")).filter(F.col("rank") <= k)
    events = spark.read.parquet(str(folder / "after")).select("context", "item").distinct()
    joined = events.join(
        lists, (events["context"] == lists["context_id"]) & (events["item"] == lists["item_id"]), "left"
    )
    by_context = joined.groupBy("context").agg(
        (F.count("rank") / F.count("*")).alias("recall"), F.sum(1 / F.log2(F.col("rank") + 1)).alias("dcg")
    )
    return float(by_context.agg(F.avg("recall"), F.avg("dcg")).collect()[0][0])


if __name__ == "__main__":
    main()
