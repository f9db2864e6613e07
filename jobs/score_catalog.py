"""The top-K items: ``spark-submit jobs/score_catalog.py --config configs/demo.yaml --date 2026-01-07``."""

from fieldwise.jobs.cli import door

if __name__ == "__main__":
    door("score-catalog", __file__)
