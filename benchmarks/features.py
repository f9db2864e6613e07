"""Raw text to published snapshot: rows/s of our job beside the same transformation in Spark SQL and in polars.

Makes a Criteo-shaped TSV (label, 13 counts, 26 long-tailed categoricals; about 265 bytes a row), warms every system up
on a small one, then measures all in one run, one process each, medians of repeats. Every contender reads the same text
and writes the same slots as Parquet: 13 log2-squared bins and 26 hashes modulo 2^20. What a build of ours does besides
(checksums, data report, manifest) is in its time.

    python benchmarks/features.py --rows 1000000 --cores 2

The last line of stdout is one JSON object: rows/s, seconds and peak memory (MB) of every contender, and microseconds a
row that each stage of ours takes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

from benchmarks.record import record  # noqa: E402

WARM_UPS, WARM = 2, "warm"
NUMBERS, CATEGORIES, BUCKETS = 13, 26, 1 << 20
COLUMNS = ["label", *(f"I{i}" for i in range(1, NUMBERS + 1)), *(f"C{i}" for i in range(1, CATEGORIES + 1))]
DISTINCT = [1460, 583, 10**7, 2 * 10**6, 305, 24, 12517, 633, 3, 93145, 5683, 8 * 10**6, 3194, 27, 14992, 5 * 10**6, 10]
DISTINCT += [5652, 2173, 4, 7 * 10**6, 18, 15, 286181, 105, 142572]

_HEX = np.array([b"%02x" % byte for byte in range(256)])


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
                text = _HEX[value.astype(">u4").view(np.uint8).reshape(n, 4)].view("S8").ravel()
                columns.append(np.where(rng.random(n) < 0.03, b"", text))
            file.write(b"\n".join(map(b"\t".join, zip(*(c.tolist() for c in columns), strict=True))) + b"\n")


class Task(NamedTuple):
    """What a contender gets."""

    place: Path
    """Directory for whatever it writes."""
    logs: list[Path]
    """To encode one after another."""


def write_config(place: Path, log: Path, *, vocabulary: bool, shuffle: str) -> Path:
    """Ours: hash fields by default, vocabularies where fitting is measured."""
    kind = "kind: vocabulary, min_count: 4" if vocabulary else f"kind: hash, buckets: {BUCKETS}"
    config = place / f"{'fit' if vocabulary else 'hash'}-{shuffle}.yaml"
    config.write_text(
        f"name: bench\nsource: {{path: {log}, format: tsv, columns: [label, 'I{{1..13}}', 'C{{1..26}}']}}\n"
        f"label: label\nsplit: {{by: none}}\nfields:\n  - {{name: 'I{{1..13}}', kind: number, log2_squared: true}}\n"
        f"  - {{name: 'C{{1..26}}', {kind}}}\nmodel: {{kind: ffm}}\nsnapshot: {{shuffle: {shuffle}}}\n"
    )
    return config


def repeat(task: Task, once: Callable[[Path], None]) -> list[float]:
    """Seconds of ``once(log)`` for every log but the warm-ups, whose end the watcher of memory is told of."""
    seconds = []
    for number, log in enumerate(task.logs):
        if number == WARM_UPS:
            (task.place / WARM).touch()
        started = time.perf_counter()
        once(log)
        seconds.append(time.perf_counter() - started)
    return seconds[WARM_UPS:]


Runs = tuple[list[float], int]
"""Seconds of every repeat, and the rows that came out."""


def run_ours(task: Task, vocabulary: bool, shuffle: str, fitted: bool) -> Runs:
    """Text in, published snapshot out; with a frozen spec unless ``fitted``."""
    from fieldwise.pipelines.build.features import build_features
    from fieldwise.pipelines.config.load import load_config

    result: dict[str, Any] = {}
    configs = {log: load_config(write_config(task.place, log, vocabulary=vocabulary, shuffle=shuffle)) for log in
               task.logs}  # fmt: skip
    specs = {log: None if fitted else build_features(_in(config, task.place / f"spec-{shuffle}-{log.stem}"))["dir"]
             for log, config in configs.items()}  # fmt: skip

    def once(log: Path) -> None:
        result.update(build_features(_in(configs[log], task.place / "ours"), spec=specs[log], replace=True))

    return repeat(task, once), sum(result["rows"].values())


def _in(config: Any, workspace: Path) -> Any:
    changed = config.model_copy(update={"workspace": str(workspace)})
    changed._file = config.file
    return changed


def run_spark(task: Task, tuned: bool) -> Runs:
    """The plain way: read csv, one expression a column, write Parquet, in a default session (or one tuned)."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    from fieldwise.features.java.home import java_environment

    os.environ.update(java_environment() | os.environ)
    builder = SparkSession.builder.master(os.environ["SPARK_MASTER"]).config("spark.log.level", "ERROR")
    if tuned:
        builder = builder.config("spark.sql.codegen.hugeMethodLimit", "8000")
    spark = builder.getOrCreate()
    schema = ", ".join(f"{name} {'int' if name[0] in 'lI' else 'string'}" for name in COLUMNS)

    def once(log: Path) -> None:
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
        frame.select(*slots, F.col("label").cast("float")).write.mode("overwrite").parquet(f"{task.place}/spark")

    seconds = repeat(task, once)
    rows = spark.read.parquet(f"{task.place}/spark").count()
    spark.stop()
    return seconds, rows


def run_polars(task: Task) -> Runs:
    """The same in polars' lazy engine (its own hash: the cost, not the value, is compared)."""
    import polars as pl

    schema = {name: pl.Int64 if name[0] in "lI" else pl.String for name in COLUMNS}

    def once(log: Path) -> None:
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
            f"{task.place}/polars.parquet"
        )

    return repeat(task, once), pl.scan_parquet(f"{task.place}/polars.parquet").select(pl.len()).collect().item()


def run_stages(task: Task) -> dict[str, float]:
    """Microseconds a row of each stage of ours, alone on one core, block after block as a task works."""
    import hashlib

    from fieldwise.features.build import files, placement
    from fieldwise.features.columns.hashing import xxh64_rows
    from fieldwise.features.fields.encoder import Encoder
    from fieldwise.features.fields.fitting import check, count, fit_spec, merge
    from fieldwise.features.source.log import LogReader
    from fieldwise.features.source.raw import read_range
    from fieldwise.features.source.rows import FileRange
    from fieldwise.pipelines.config.load import load_config

    log = task.logs[-1]
    configs = [load_config(write_config(task.place, log, vocabulary=v, shuffle="none")) for v in (False, True)]
    config, spec = configs[0], fit_spec(configs[0].fields, merge([]))
    reader, encoder = LogReader(config.features, config.base), Encoder(spec)
    schema = files.snapshot_schema(spec.slot_names, has_weight=False)
    seconds: dict[str, float] = defaultdict(float)
    rows, warm = 0, False

    def timed(stage: str, function: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = function(*arguments)
        seconds[stage] += time.perf_counter() - started
        return result

    raws = read_range(config.source, FileRange(str(log), 0, min(log.stat().st_size, 64 << 20)), reader.columns)
    while (raw := timed("read and parse", next, raws, None)) is not None:
        batch = timed("label", reader.finish, raw)
        slots = timed("encode", encoder.encode, batch.columns).slots
        timed("tally (fitting only)", check, configs[1].fields, batch.columns)
        timed("tally (fitting only)", count, configs[1].fields, batch.columns)
        packed = timed("pack", placement.pack, slots, batch.label, None)
        keys = timed("key", xxh64_rows, packed, 42)
        order, _ = timed("order", placement.order_of, packed, keys)
        placed = timed("unpack", placement.unpack, packed, order, spec.slots)
        data = timed("parquet", files.parquet_bytes, schema, *placed)
        timed("checksum", lambda data: hashlib.sha256(data).digest(), data)
        timed("disk", (task.place / "stage.parquet").write_bytes, data)
        if warm:
            rows += batch.rows
        else:
            seconds.clear()
            warm = True
    return {stage: round(took / rows * 1e6, 3) for stage, took in seconds.items()}


CONTENDERS = {
    "ours, frozen spec, no shuffle": lambda task: run_ours(task, vocabulary=False, shuffle="none", fitted=False),
    "ours, frozen spec, global shuffle": lambda task: run_ours(task, vocabulary=False, shuffle="global", fitted=False),
    "ours, fit and encode, global shuffle": lambda task: run_ours(task, vocabulary=True, shuffle="global", fitted=True),
    "spark, default session": lambda task: run_spark(task, tuned=False),
    "spark, hugeMethodLimit=8000": lambda task: run_spark(task, tuned=True),
    "polars": run_polars,
}
STAGES = "stages"


def watch_memory(pid: int, warm: Path | None, stop: threading.Event, peak: dict[str, float]) -> None:
    """Highest memory (PSS, MB) of a process, of JVMs and of Python workers below it, and of all together.

    Until ``warm`` appears: the system holds a process up while it counts.
    """
    while not stop.wait(0.5) and not (warm and warm.exists()):
        now, queue = dict.fromkeys(("driver", "jvm", "workers"), 0.0), [pid]
        while queue:
            current = queue.pop()
            try:
                text = Path(f"/proc/{current}/smaps_rollup").read_text()
                command = Path(f"/proc/{current}/cmdline").read_bytes()
                kind = "driver" if current == pid else "jvm" if b"java" in command.split(b"\0")[0] else "workers"
                now[kind] += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
                for task in Path(f"/proc/{current}/task").iterdir():
                    queue += map(int, (task / "children").read_text().split())
            except (OSError, StopIteration):
                continue  # it ended while we looked
        now["all"] = sum(now.values())
        peak.update({kind: round(max(peak.get(kind, 0.0), size)) for kind, size in now.items()})


def in_process(arguments: list[str], cores: int, warm: Path | None = None) -> tuple[Any, dict[str, float]]:
    """What a Python process prints last, as JSON, and its peak memory."""
    environment = os.environ | {
        "SPARK_MASTER": f"local[{cores}]",
        "POLARS_MAX_THREADS": str(cores),
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    stop, peak = threading.Event(), dict[str, float]()
    watcher = threading.Thread(target=watch_memory, args=(process.pid, warm, stop, peak))
    watcher.start()
    output, _ = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{arguments} failed with exit code {process.returncode}")
    return json.loads(output.splitlines()[-1]), peak


def measure(name: str, task: Task, cores: int) -> dict[str, Any]:
    """Run one contender in a process of its own: warm-ups (a small log, then a whole one), then repeats."""
    (task.place / WARM).unlink(missing_ok=True)
    arguments = [__file__, "--contender", name, "--place", str(task.place), "--logs", *map(str, task.logs)]
    (seconds, rows), peak = in_process(arguments, cores, task.place / WARM)
    median = statistics.median(seconds)
    return {
        "rows_per_second": round(rows / median),
        "seconds": [round(value, 2) for value in seconds],
        "rows": rows,
        "peak_mb": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--warm-up-rows", type=int, default=50_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="contenders to run, by the beginning of their names")
    parser.add_argument("--place", type=Path, help="work directory; default: a temporary one")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--logs", nargs="*", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        task = Task(arguments.place, arguments.logs)
        print(json.dumps(run_stages(task) if arguments.contender == STAGES else CONTENDERS[arguments.contender](task)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.place) as folder:
        place = Path(folder)
        small, large = place / "small.tsv", place / "large.tsv"
        make_log(small, arguments.warm_up_rows)
        make_log(large, arguments.rows)
        task = Task(place, [small, large] + [large] * arguments.repeats)
        figures = {}
        for name in CONTENDERS:
            if not arguments.only or name.startswith(tuple(arguments.only)):
                figures[name] = measure(name, task, arguments.cores)
                print(f"{name:<40}{figures[name]}", file=sys.stderr)
        stages, _ = in_process([__file__, "--contender", STAGES, "--place", folder, "--logs", str(large)], 1)
        for stage, micros in stages.items():
            print(f"  {stage:<20}{micros:>8.3f} us/row", file=sys.stderr)
        size = large.stat().st_size
    found = {"bytes": size, "rows": arguments.rows, "cores": arguments.cores, "contenders": figures, "stages": stages}
    record("features", found)


if __name__ == "__main__":
    main()
