"""Rows a second of the two readers, and of other sets of versions beside this one: whole passes over one snapshot.

    python benchmarks/reading.py --beside .venv-3.5/bin/python

A pass is what every epoch of a training does before its steps: files decoded ahead (``training.reader: petastorm`` or
``arrow``), rows put into the plan's shuffled order, batches assembled. Nothing is kept between passes. Environments and
readers take turns, so that a slow minute of the machine falls on all of them; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import PACKAGES, record  # noqa: E402
from benchmarks.rows import field_sizes, labels_of, long_tailed, publish  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.training.data.cache import Reader, Seen  # noqa: E402
from fieldwise.training.data.plan import Plan  # noqa: E402
from fieldwise.training.data.reader import PlanReader  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402


def passes(place: str, batch: int) -> dict[str, Any]:
    """Rows a second by reader, each after a pass that warms up, and the digest of all batches."""
    data = TrainData.of([load_snapshot(place)])
    files, names = data.train.files, data.spec.slot_names
    found: dict[str, Any] = {"versions": {package: version(package) for package in PACKAGES}}
    for reader in get_args(Reader):
        for _ in range(2):
            one_pass = PlanReader(files, Plan([file.rows for file in files], batch_size=batch), range(8), names)
            started = time.perf_counter()
            for _ in one_pass.read(Seen(reader=reader)):
                pass
            seconds = time.perf_counter() - started
        found[reader] = {"rows_per_second": one_pass.rows / seconds, "digest": one_pass.digest.hexdigest()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1 << 21)
    parser.add_argument("--fields", type=int, default=39)
    parser.add_argument("--batch", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", nargs="*", default=[], metavar="PYTHON", help="of other environments")
    parser.add_argument("--snapshot", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.snapshot:
        print(json.dumps(passes(options.snapshot, options.batch)))
        return
    with tempfile.TemporaryDirectory(prefix="fieldwise-reading-") as folder:
        sizes = field_sizes(options.fields, 1 << 20)
        slots = long_tailed(sizes, options.rows)
        place = publish(Path(folder) / "rows", sizes, slots, labels_of(sizes, slots))
        del slots
        environments = [sys.executable, *options.beside]
        rounds: list[list[dict[str, Any]]] = [[] for _ in environments]
        for _ in range(options.rounds):
            for python, found in zip(environments, rounds, strict=True):
                told = subprocess.run([python, __file__, "--snapshot", place, "--batch", str(options.batch)],
                                      stdout=subprocess.PIPE, text=True, check=True).stdout  # fmt: skip
                found.append(json.loads(told.splitlines()[-1]))
    table = [
        {"versions": found[0]["versions"]} | {
            reader: {"rows_per_second": round(statistics.median(each[reader]["rows_per_second"] for each in found)),
                     "all": [round(each[reader]["rows_per_second"]) for each in found]}
            for reader in get_args(Reader)
        }
        for found in rounds
    ]  # fmt: skip
    digests = {each[reader]["digest"] for found in rounds for each in found for reader in get_args(Reader)}
    record("reading", {"rows": options.rows, "fields": options.fields, "environments": table,
                       "same_batches": len(digests) == 1})  # fmt: skip


if __name__ == "__main__":
    main()
