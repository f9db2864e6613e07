"""Excess logloss over the truth as rows grow: the planted shop at several sizes, the same config, every size anew.

    python benchmarks/planted.py --rows 100000 1000000 10000000 --models lr ffm

Split: days one to five train, six is valid, seven is test; seed 42. The last line of stdout is one JSON object; a plot
lies beside the results.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

import matplotlib  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from benchmarks.record import RESULTS, record  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.demo.demo import demo  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--models", nargs="+", default=["lr", "ffm"])
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    found = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="fieldwise-planted-") as work:
            os.environ["FIELDWISE_WORK"] = work
            config = load_config(ROOT / "configs" / "demo.yaml", [])
            found[rows] = demo(config, models=options.models, rows=rows, ranks=options.ranks)
    excess = {model: [row["excess"] for rows in found for row in found[rows]["models"] if row["model"] == model]
              for model in options.models}  # fmt: skip
    figure, axes = plt.subplots(figsize=(6, 4))
    for model, values in excess.items():
        axes.loglog(list(found), values, marker="o", label=model)
    axes.set(xlabel="rows of the log", ylabel="excess test logloss over the truth")
    axes.legend()
    RESULTS.mkdir(exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "planted"  # the same bytes for the same figures
    figure.savefig(RESULTS / "planted.svg", bbox_inches="tight", metadata={"Date": None})
    tables = {str(rows): {"models": result["models"], "seconds": result["seconds"]} for rows, result in found.items()}
    record("planted", {"excess": excess, "rows": list(found), "runs": tables})


if __name__ == "__main__":
    main()
