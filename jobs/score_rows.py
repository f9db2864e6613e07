"""Probabilities for raw rows: ``spark-submit jobs/score_rows.py --config configs/criteo.yaml``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this folder's names would hide others
    from jobs.cli import main

    sys.exit(main(["score-rows", *sys.argv[1:]]))
