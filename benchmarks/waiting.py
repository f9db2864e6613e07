"""Seconds that people wait: each command on two days of 5,000 rows, on a machine that has compiled nothing, then again.

    python benchmarks/waiting.py

Of each command: until its first words on stderr, until its result, until its process has ended, and the CPU seconds of
all its processes. Cold: the caches of compiled kernels and of the JVM's classes are empty; the second command there
makes the JVM's archive. Warm: the same commands again, in another workspace.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.processes import fieldwise  # noqa: E402
from benchmarks.record import record  # noqa: E402
from benchmarks.streams import shop  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", default=str(ROOT), help="another checkout")
    options = parser.parse_args()
    tree = str(Path(options.tree).resolve())
    with tempfile.TemporaryDirectory(prefix="fieldwise-waiting-") as place:
        caches = {"XDG_CACHE_HOME": f"{place}/cache", "NUMBA_CACHE_DIR": f"{place}/kernels"}
        file, days = shop(Path(place) / "shop", drifting=False, days=3, rows_per_day=5000)
        catalog = (f"catalog={{contexts: {{path: {place}/shop/users.csv}}, context_id: user, "
                   f"items: {{path: {place}/shop/items.csv}}, item_id: item, time: '{{date}}T19:00:00', "
                   "fixed: {position: 1, device: phone}}")  # fmt: skip
        figures: dict[str, dict[str, dict[str, float | None]]] = {}
        for state in ("cold", "warm"):
            work = f"{place}/{state}"
            where = ["--config", file, "--set", f"workspace={work}", "--set", catalog]
            first, second = (f"{work}/snapshots/{day}" for day in days[:2])
            commands = {
                "--help": ["--help"],
                "features": ["features", "--date", days[0], *where],
                "features, a next day": ["features", "--date", days[1], "--spec", first, *where],
                "train": ["train", "--train", first, "--valid", second, *where],
                "score-catalog": ["score-catalog", "--date", days[1], *where],
                "daily": ["daily", "--date", days[2], *where],
                "explain": ["explain", "--set", f"source.path={place}/shop/log/{days[2]}.csv", *where],
            }
            figures[state] = {}
            for name, command in commands.items():
                cost = fieldwise(tree, *command, environment={**os.environ, **caches})
                figures[state][name] = {
                    "first_words_s": cost.first_words,
                    "result_s": cost.result,
                    "end_s": cost.wall,
                    "cpu_s": sum(cost.cpu.values()),
                }
                print(f"{state:8} {name:22} {figures[state][name]}", file=sys.stderr)
    record("waiting", figures)


if __name__ == "__main__":
    main()
