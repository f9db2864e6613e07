"""CPU seconds of one date of the daily cycle, 5,000 rows, as a scheduler starts it: in a process of its own.

    python benchmarks/date_cost.py --trees /path/to/another/checkout .

Every tree does the same: a first model from two days of the planted shop, then ``fieldwise daily`` on the following
ones. CPU seconds are those of all processes that a command starts (driver, JVM, Spark's Python, ranks), by kind; trees
are measured in turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402
from benchmarks.streams import shop  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", nargs="+", default=[str(ROOT)])
    parser.add_argument("--dates", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000)
    options = parser.parse_args()
    costs: dict[str, list[dict[str, float]]] = {tree: [] for tree in options.trees}
    walls: dict[str, list[float]] = {tree: [] for tree in options.trees}
    with tempfile.TemporaryDirectory(prefix="fieldwise-cost-") as place:
        file, days = shop(Path(place) / "shop", drifting=False, days=2 + options.dates, rows_per_day=options.rows)
        for number, tree in enumerate(options.trees):
            work = f"{place}/work{number}"
            run(tree, file, work, "features", "--date", days[0])
            run(tree, file, work, "features", "--date", days[1], "--spec", f"{work}/snapshots/{days[0]}")
            run(tree, file, work, "train", "--train", f"{work}/snapshots/{days[0]}", "--valid",
                f"{work}/snapshots/{days[1]}")  # fmt: skip
        for day in days[2:]:
            for number, tree in enumerate(options.trees):
                cost, wall = run(tree, file, f"{place}/work{number}", "daily", "--date", day)
                costs[tree].append(cost)
                walls[tree].append(wall)
    kinds = sorted({kind for found in costs.values() for cost in found for kind in cost})
    cpu = {tree: statistics.median(sum(cost.values()) for cost in found) for tree, found in costs.items()}
    table = {
        tree: {"cpu_s": cpu[tree],
               "wall_s": statistics.median(walls[tree]),
               "by_kind": {kind: round(statistics.median(cost[kind] for cost in found), 2) for kind in kinds}}
        for tree, found in costs.items()
    }  # fmt: skip
    first, *_, last = options.trees
    record("date_cost", {"rows": options.rows, "dates": options.dates, "trees": list(table.values()),
                         "ratio": cpu[last] / cpu[first]})  # fmt: skip


def run(tree: str, file: str, work: str, *arguments: str) -> tuple[dict[str, float], float]:
    """A command of a tree: CPU seconds of its processes by kind, and its wall clock."""
    command = [sys.executable, "-m", "fieldwise.jobs.cli", *arguments, "--config", file, "--set", f"workspace={work}"]
    environment = os.environ | {"PYTHONPATH": tree, "SPARK_MASTER": "local[2]"}
    started, seen = time.perf_counter(), dict[tuple[int, float], tuple[str, float]]()
    log = tempfile.TemporaryFile()  # noqa: SIM115  a pipe would fill and stop it
    process = psutil.Popen(command, env=environment, cwd=tree, stdout=subprocess.DEVNULL, stderr=log)
    while process.poll() is None:
        for each in [process, *children(process)]:
            try:
                times, words = each.cpu_times(), " ".join(each.cmdline())
                seen[each.pid, each.create_time()] = (kind(words), times.user + times.system)
            except psutil.Error:  # gone between two looks: what it used until the last one counts
                continue
        time.sleep(0.05)
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    if process.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}\n" + "\n".join(lines[-20:]))
    total: dict[str, float] = defaultdict(float)
    for name, seconds in seen.values():
        total[name] += seconds
    return total, time.perf_counter() - started


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def kind(command: str) -> str:
    known = {"java": "JVM", "spark.daemon": "Spark's Python", "distributed.run": "torchrun", "jobs/train.py": "rank",
             "fieldwise.jobs.cli": "driver"}  # fmt: skip
    return next((name for word, name in known.items() if word in command), "other")


if __name__ == "__main__":
    main()
