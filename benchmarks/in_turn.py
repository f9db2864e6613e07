"""Another benchmark of several checkouts or environments, in turns: what a change, or a set of versions, does to speed.

    python benchmarks/in_turn.py --of /path/to/a/checkout --of . --rounds 5 -- train_step.py --models fm-16
    python benchmarks/in_turn.py --of .:.venv-3.5/bin/python --of . -- features.py --rows 500000

Each ``--of`` is a checkout, with the Python of its environment behind a colon (default: this one). In every round each
runs its own copy of the benchmark once, so that a slow minute falls on all. Compared are the figures named
``rows_per_second`` or ``pairs_per_s``: medians over the rounds, the best of them, and the ratios of both to the first
``--of``. On a shared machine the best moves least: nothing makes code faster than it is, much makes it slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402

SPEEDS = ("rows_per_second", "pairs_per_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", action="append", required=True, metavar="TREE[:PYTHON]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="in_turn", help="of the file of results")
    parser.add_argument("benchmark", nargs=argparse.REMAINDER, help="after --, with its options")
    options = parser.parse_args()
    script, *arguments = (word for word in options.benchmark if word != "--")
    speeds: list[dict[str, list[float]]] = [{} for _ in options.of]
    versions: list[dict[str, str]] = [{} for _ in options.of]
    for _ in range(options.rounds):
        for number, side in enumerate(options.of):
            told = run(side, script, arguments)
            versions[number] = told["versions"]
            for name, value in figures(told["figures"]):
                speeds[number].setdefault(name, []).append(value)
    ratios: list[dict[str, dict[str, float]]] = [{} for _ in options.of]
    for what, of in (("median", statistics.median), ("best", max)):
        for name, values in speeds[0].items():
            for side, found in zip(ratios, speeds, strict=True):
                side.setdefault(what, {})[name] = round(of(found[name]) / of(values), 4)
            print(f"{what:<8}{name:<64}" + "".join(f"{side[what][name]:>8.3f}" for side in ratios), file=sys.stderr)
    record(options.name, {
        "benchmark": " ".join([script, *arguments]), "rounds": options.rounds,
        "sides": [{"of": side.replace(str(ROOT), "."), "versions": versions[n], "all": speeds[n], "ratios": ratios[n]}
                  for n, side in enumerate(options.of)],
    })  # fmt: skip


def run(side: str, script: str, arguments: list[str]) -> dict[str, Any]:
    """What the benchmark prints last."""
    tree, _, python = side.partition(":")
    root = Path(tree).resolve()
    command = [str(Path(python).absolute()) if python else sys.executable, str(root / "benchmarks" / script)]
    told = subprocess.run([*command, *arguments], cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
                          stdout=subprocess.PIPE, text=True, check=True).stdout  # fmt: skip
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def figures(found: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Speeds by where they stand; of a list, by the position in it."""
    if isinstance(found, dict):
        parts = [part for part in (found.get("model"), found.get("batch")) if isinstance(part, str | int)]
        here = ".".join(filter(None, [name, *map(str, parts)]))
        for key, value in found.items():
            if key in SPEEDS:
                yield f"{here}.{key}", value
            else:
                yield from figures(value, f"{here}.{key}")
    elif isinstance(found, list):
        for place, value in enumerate(found):
            yield from figures(value, f"{name}.{place}")


if __name__ == "__main__":
    main()
