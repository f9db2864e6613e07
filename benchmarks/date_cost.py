"""CPU seconds of one date of the daily cycle, 5,000 rows, as a scheduler starts it: in a process of its own.

    python benchmarks/date_cost.py --trees /path/to/another/checkout .

Every tree does the same: a first model from two days of the planted shop, then ``fieldwise daily`` on the following
ones. CPU seconds are those of all processes that a command starts (driver, JVM, Spark's Python, ranks), by kind; trees
are measured in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.processes import Cost, fieldwise  # noqa: E402
from benchmarks.record import record  # noqa: E402
from benchmarks.streams import shop  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", nargs="+", default=[str(ROOT)])
    parser.add_argument("--dates", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000)
    options = parser.parse_args()
    trees = [str(Path(tree).resolve()) for tree in options.trees]
    costs: dict[str, list[Cost]] = {tree: [] for tree in trees}
    with tempfile.TemporaryDirectory(prefix="fieldwise-cost-") as place:
        file, days = shop(Path(place) / "shop", drifting=False, days=2 + options.dates, rows_per_day=options.rows)
        known = yaml.safe_load(Path(file).read_text())
        known.get("training", {}).pop("auto", None)  # older checkouts do not know it, and no date searches
        Path(file).write_text(yaml.safe_dump(known))
        where = {tree: ["--config", file, "--set", f"workspace={place}/{n}"] for n, tree in enumerate(trees)}
        for number, tree in enumerate(trees):
            first, second = (f"{place}/{number}/snapshots/{day}" for day in days[:2])
            fieldwise(tree, "features", "--date", days[0], *where[tree])
            fieldwise(tree, "features", "--date", days[1], "--spec", first, *where[tree])
            fieldwise(tree, "train", "--train", first, "--valid", second, *where[tree])
        for day in days[2:]:
            for tree in trees:
                costs[tree].append(fieldwise(tree, "daily", "--date", day, *where[tree]))
    kinds = sorted({kind for found in costs.values() for cost in found for kind in cost.cpu})
    cpu = {tree: statistics.median(sum(cost.cpu.values()) for cost in found) for tree, found in costs.items()}
    table = [
        {"cpu_s": cpu[tree],
         "wall_s": statistics.median(cost.wall for cost in found),
         "by_kind": {kind: round(statistics.median(cost.cpu.get(kind, 0.0) for cost in found), 2) for kind in kinds}}
        for tree, found in costs.items()
    ]  # fmt: skip
    record("date_cost", {"rows": options.rows, "dates": options.dates, "trees": table,
                         "ratio": cpu[trees[-1]] / cpu[trees[0]]})  # fmt: skip


if __name__ == "__main__":
    main()
