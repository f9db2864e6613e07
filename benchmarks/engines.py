"""Where this process stops being faster than Spark: `features` of Criteo-shaped logs of growing size, by both engines.

    python benchmarks/engines.py --rows 10000 100000 1000000

Each is a command of its own, warm caches, all of its processes counted: seconds until its end, CPU seconds, peak memory
(PSS) of all processes. The log has 13 numbers and 26 hashed categories, the spec is fitted, rows are shuffled. Digests
must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.features import make_log, write_config  # noqa: E402
from benchmarks.record import record  # noqa: E402


def command(config: Path, workspace: str, engine: str) -> dict[str, Any]:
    """One build in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "SPARK_MASTER"}
    arguments = ["features", "--config", str(config), "--set", f"workspace={workspace}", "--set", f"engine={engine}"]
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = psutil.Popen(
            [sys.executable, "-m", "fieldwise.jobs.cli", *arguments], env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=told, stderr=said,
        )  # fmt: skip
        cpu: dict[int, float] = {}
        peak = 0
        while process.poll() is None:
            held = 0
            for each in _family(process):
                try:
                    times = each.cpu_times()
                    cpu[each.pid] = times.user + times.system
                    held += each.memory_full_info().pss
                except psutil.Error:
                    continue  # it ended while we looked
            peak = max(peak, held)
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        told.seek(0)
        said.seek(0)
        if process.returncode:
            raise SystemExit(said.read().decode())
        digest = json.loads(told.read().splitlines()[-1])["digest"]
    return {"seconds": round(seconds, 2), "cpu_s": round(sum(cpu.values()), 2), "mib": peak >> 20, "digest": digest}


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory(prefix="fieldwise-engines-") as place:
        for rows in options.rows:
            log = Path(place, f"log-{rows}.tsv")
            make_log(log, rows, seed=rows)
            config = write_config(Path(place), log, vocabulary=False, shuffle="global")
            found = {engine: command(config, f"{place}/{rows}-{engine}", engine) for engine in ("local", "spark")}
            assert found["local"].pop("digest") == found["spark"].pop("digest")
            figures.append({"rows": rows, "source_mib": round(log.stat().st_size / 2**20, 1), **found})
            print(figures[-1], file=sys.stderr)
            log.unlink()
    record("engines", {"sizes": figures})


if __name__ == "__main__":
    main()
