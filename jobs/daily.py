"""One day of the daily cycle: ``spark-submit jobs/daily.py --config configs/demo.yaml --date 2026-01-07``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:] = [
        place for place in sys.path if place != str(Path(__file__).resolve().parent)
    ]  # names here hide others
    from fieldwise.jobs.cli import main

    sys.exit(main(["daily", *sys.argv[1:]]))
