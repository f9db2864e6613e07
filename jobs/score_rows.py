"""Probabilities for raw rows: ``spark-submit jobs/score_rows.py --config configs/criteo.yaml``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:] = [
        place for place in sys.path if place != str(Path(__file__).resolve().parent)
    ]  # names here hide others
    from fieldwise.jobs.cli import main

    sys.exit(main(["score-rows", *sys.argv[1:]]))
