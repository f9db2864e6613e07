"""Memory and time of a feature build as its log grows, with Spark's default memory.

rows      the job of ``benchmarks/features.py`` (fit and encode, and a frozen spec; global shuffle) on a log and on one
          ten times as long: time tenfold, memory flat
distinct  a field of as many different values as rows, all kept (``min_count: 1``): fitted, encoded, published

    python benchmarks/features_growth.py --rows 1000000 --distinct 10000000

The last line of stdout is one JSON object: seconds and peak memory (PSS, MB) of the driver, its JVM and the Python
workers, each build in a process of its own after a small one that warms it up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

from benchmarks.features import in_process, make_log, write_config  # noqa: E402
from benchmarks.record import record  # noqa: E402

TIMES = 10


def make_distinct(path: Path, rows: int) -> None:
    """label, value: every value once, in no order, 10 to 14 bytes long."""
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        for first in range(0, rows, 1 << 20):
            values = (np.arange(first, min(first + (1 << 20), rows), dtype=np.uint64) * np.uint64(2654435761)) % 10**14
            labels = rng.integers(0, 2, len(values))
            file.write(b"".join(b"%d\tv%010d\n" % row for row in zip(labels.tolist(), values.tolist(), strict=True)))


def distinct_config(place: Path, log: Path) -> Path:
    config = place / "distinct.yaml"
    config.write_text(
        f"name: distinct\nsource: {{path: {log}, format: tsv, columns: [label, value]}}\nlabel: label\n"
        "split: {by: none}\nfields:\n  - {name: value, kind: vocabulary, min_count: 1}\nmodel: {kind: lr}\n"
    )
    return config


def build(place: Path, kind: str, logs: list[Path]) -> dict[str, Any]:
    """Seconds of the last log's build, after those of the others."""
    from fieldwise.pipelines.build.features import build_features
    from fieldwise.pipelines.config.load import load_config

    result, seconds = {}, 0.0
    for log in logs:
        if kind == "distinct":
            path = distinct_config(place, log)
        else:
            path = write_config(place, log, vocabulary=kind == "fit", shuffle="global")
        # the spec of the frozen run is fitted on the first, small log
        spec = None if kind != "frozen" or log == logs[0] else f"{place}/spec/snapshots/all"
        workspace = "spec" if kind == "frozen" and spec is None else f"{kind}-{log.stem}"
        config = load_config(path, [f"workspace={place / workspace}"])
        started = time.perf_counter()
        result = build_features(config, spec=spec, replace=True)
        seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 2), "rows": sum(result["rows"].values())}


def measure(place: Path, kind: str, logs: list[Path], cores: int) -> dict[str, Any]:
    arguments = [__file__, "--kind", kind, "--place", str(place), "--logs", *map(str, logs)]
    told, peak = in_process(arguments, cores)
    figures = {**told, "rows_per_second": round(told["rows"] / told["seconds"]), "peak_mb": peak}
    print(f"{kind:<10}{figures}", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the shorter log; 0: leave growth out")
    parser.add_argument("--distinct", type=int, default=10_000_000, help="values of the one field; 0: leave it out")
    parser.add_argument("--kinds", nargs="*", default=["frozen", "fit"], choices=["frozen", "fit"])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--place", type=Path, help="work directory; default: a temporary one")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--logs", nargs="*", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(build(arguments.place, arguments.kind, arguments.logs)))
        return
    figures: dict[str, Any] = {"cores": arguments.cores}
    with tempfile.TemporaryDirectory(dir=arguments.place) as folder:
        place = Path(folder)
        small = place / "small.tsv"
        if arguments.rows:
            make_log(small, 50_000)
            logs = [place / "short.tsv", place / "long.tsv"]
            for log, times in zip(logs, (1, TIMES), strict=True):
                make_log(log, arguments.rows * times)
            for kind in arguments.kinds:
                short, long = (measure(place, kind, [small, log], arguments.cores) for log in logs)
                times = long["seconds"] / short["seconds"]
                figures[kind] = {"short": short, "long": long, "times": round(times, 2)}
        if arguments.distinct:
            log = place / "distinct.tsv"
            make_distinct(log, arguments.distinct)
            figures["distinct"] = measure(place, "distinct", [log], arguments.cores)
    record("features_growth", figures)


if __name__ == "__main__":
    main()
