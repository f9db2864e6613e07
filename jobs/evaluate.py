"""Metrics of a model on snapshots: ``python jobs/evaluate.py --config configs/movielens.yaml``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:] = [
        place for place in sys.path if place != str(Path(__file__).resolve().parent)
    ]  # names here hide others
    from fieldwise.jobs.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
