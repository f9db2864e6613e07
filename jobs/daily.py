"""One day of the daily cycle: ``spark-submit jobs/daily.py --config configs/demo.yaml --date 2026-01-07``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this folder's names would hide others
    from jobs.cli import main

    sys.exit(main(["daily", *sys.argv[1:]]))
