"""One day of the daily cycle: ``spark-submit jobs/daily.py --config configs/demo.yaml --date 2026-01-07``."""

from fieldwise.jobs.cli import door

if __name__ == "__main__":
    door("daily", __file__)
