"""A log of Criteo's size once, from raw text to scored rows: seconds by stage, peak memory of all processes, rows lost.

    python benchmarks/criteo_size.py --rows 45000000

Makes a log shaped like the Criteo challenge's (benchmarks/features.py: label, 13 counts, 26 long-tailed categoricals)
whose clicks follow planted effects of every column and of some pairs, in text of about 250 bytes a row. Then
`features`, `train` (FFM, dim 4, ``--epochs``, fixed settings) and `score-rows` of every row, each as a command. Memory
is the sum of proportional set sizes (shared pages counted once) of a command and all that it started, looked at every
second. ``lost`` counts rows that are neither in the snapshot nor in quarantine, and rows without a score.

``--spark-share`` of the rows go through the same encoding in a plain Spark job in a default session, which neither
splits, nor shuffles, nor proves anything; its seconds for all rows follow by proportion.
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
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

from benchmarks.features import COLUMNS, DISTINCT, NUMBERS, Task, run_spark  # noqa: E402
from benchmarks.record import record  # noqa: E402

FILE_ROWS, BLOCK = 1_500_000, 100_000
_DIGITS = np.array([b"%02x" % byte for byte in range(256)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=45_000_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--buckets", type=int, default=40_000, help="of each categorical: 10^6 in all, as the winners had"
    )
    parser.add_argument("--spark-share", type=float, default=0.1, help="of the rows for the plain Spark job; 0: none")
    parser.add_argument("--place", help="directory for some 20 GB (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldwise-criteo-", dir=options.place) as folder:
        figures = measure(Path(folder), options)
    record("criteo_size", figures)


def measure(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    log = place / "log"
    log.mkdir()
    begun = time.perf_counter()
    with ProcessPoolExecutor(cores) as pool:
        files = list(pool.map(write_file, repeat(log), range(0, options.rows, FILE_ROWS), repeat(options.rows)))
    size = sum(file.stat().st_size for file in files)
    print(f"log: {size / 1e9:.1f} GB in {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    config = place / "criteo.yaml"
    config.write_text(
        f"name: criteo\nworkspace: {place}/work\n"
        f"source: {{path: '{log}/*.tsv', format: tsv, columns: [label, 'I{{1..13}}', 'C{{1..26}}']}}\n"
        "label: label\nsplit: {by: hash, key: C16, valid: 0.05, test: 0.05}\nfields:\n"
        "  - {name: 'I{1..13}', kind: number, log2_squared: true}\n"
        f"  - {{name: 'C{{1..26}}', kind: hash, buckets: {options.buckets}}}\n"
        f"model: {{kind: ffm, dim: 4}}\ntraining: {{auto: false, epochs: {options.epochs}}}\n"
    )
    stages: dict[str, dict[str, Any]] = {}
    results = {}
    scores = place / "scores"
    for name, *more in (["features"], ["train"], ["score-rows", "--columns", "label", "--out", str(scores)]):
        results[name], stages[name] = command(name, "--config", str(config), *more)
        print(f"{name}: {stages[name]}", file=sys.stderr, flush=True)
    built = sum(results["features"]["rows"].values()) + sum(results["features"]["quarantined"].values())
    scored = sum(pq.read_metadata(path).num_rows for path in scores.rglob("*.parquet"))
    figures: dict[str, Any] = {
        "rows": options.rows, "columns": len(COLUMNS), "text_gb": round(size / 1e9, 1), "stages": stages,
        "seconds": round(sum(stage["seconds"] for stage in stages.values())),
        "peak_mb": max(stage["peak_mb"] for stage in stages.values()),
        "lost": {"features": options.rows - built, "score-rows": options.rows - scored},
        "test": results["train"]["metrics"]["test"], "ctr": round(rate(files), 4),
    }  # fmt: skip
    if options.spark_share:
        share = files[: max(1, round(len(files) * options.spark_share))]
        figures["spark"] = spark(place, share, options.rows)
    return figures


def write_file(log: Path, first: int, rows: int) -> Path:
    """Rows from ``first`` on, drawn from their number: the same, whoever writes them."""
    path = log / f"part-{first:09d}.tsv"
    text = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with path.open("wb") as file:
        for at in range(first, min(first + FILE_ROWS, rows), BLOCK):
            table = drawn(np.random.default_rng([7, at]), min(BLOCK, rows - at))
            pyarrow.csv.write_csv(table, file, text)
    return path


def drawn(rng: np.random.Generator, n: int) -> pa.Table:
    """Values as `benchmarks.features.make_log` spells them; clicks by effects that follow from the values."""
    logit = np.full(n, -1.4)
    columns: list[Any] = []
    signs = []
    for _ in range(NUMBERS):
        values = np.floor(np.exp(rng.exponential(2.0, n))).clip(0, 10**6).astype(np.int64)
        missing = rng.random(n) < 0.1
        logit += np.where(missing, 0.2, 0.1 * np.log1p(values) - 0.25) * 0.5
        columns.append(pa.array(values, mask=missing))
    for number, distinct in enumerate(DISTINCT):
        value = (distinct ** rng.random(n)).astype(np.uint64)
        mixed = (value + np.uint64(number)) * np.uint64(0x9E3779B97F4A7C15)
        effect = (mixed >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5
        logit += 0.7 * effect
        signs.append(np.where((mixed >> np.uint64(20)) & np.uint64(1), 1.0, -1.0))
        spelt = value * np.uint64(2654435761) + np.uint64(number * 97)
        digits = _DIGITS[spelt.astype(">u4").view(np.uint8).reshape(n, 4)].view("S8").ravel()
        texts = pa.Array.from_buffers(
            pa.string(), n, [None, pa.py_buffer(np.arange(n + 1, dtype=np.int32) * 8), pa.py_buffer(digits)]
        )
        columns.append(pa.compute.if_else(pa.array(rng.random(n) < 0.03), pa.scalar(None, pa.string()), texts))
    for one, other in ((0, 1), (1, 8), (4, 16), (5, 22), (7, 13), (13, 18)):
        logit += 0.35 * signs[one] * signs[other]
    label = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    return pa.table([pa.array(label), *columns], names=COLUMNS)


def command(*arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Result of a command, and its seconds and memory."""
    begun = time.perf_counter()
    process = psutil.Popen(
        [sys.executable, "-m", "fieldwise.jobs.cli", *arguments], stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    watcher = Watcher(process)
    watcher.start()
    out = process.stdout.read()
    code = process.wait()
    seconds = time.perf_counter() - begun
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(arguments)} ended with {code}")
    return json.loads(out.splitlines()[-1]), {"seconds": round(seconds, 1), "peak_mb": round(watcher.peak / 1e6)}


class Watcher(threading.Thread):
    """The most memory that a process and its descendants have had."""

    def __init__(self, process: psutil.Popen) -> None:
        super().__init__()
        self.process, self.peak = process, 0

    def run(self) -> None:
        while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for each in [self.process, *children(self.process)]:
                try:
                    total += each.memory_full_info().pss
                except psutil.Error:  # gone between two looks
                    continue
            self.peak = max(self.peak, total)
            time.sleep(1)


def children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def rate(files: list[Path]) -> float:
    """Of positives, in the first file."""
    labels = files[0].read_bytes().splitlines()
    return sum(line.startswith(b"1") for line in labels) / len(labels)


def spark(place: Path, files: list[Path], rows: int) -> dict[str, Any]:
    """A plain Spark job's seconds, in a process of its own, and what all rows would take."""
    os.environ.setdefault("SPARK_MASTER", f"local[{len(os.sched_getaffinity(0))}]")
    folder = place / "share"
    folder.mkdir()
    for file in files:
        (folder / file.name).hardlink_to(file)
    warm = place / "warm.tsv"
    warm.write_bytes(b"".join(line + b"\n" for line in files[0].read_bytes().splitlines()[:50_000]))
    with ProcessPoolExecutor(1) as pool:
        (seconds,), done = pool.submit(run_spark, Task(place, [warm, warm, folder]), False).result()
    return {"rows": done, "seconds": round(seconds, 1), "seconds_of_all": round(seconds * rows / done)}


if __name__ == "__main__":
    main()
