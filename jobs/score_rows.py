"""Probabilities for raw rows: ``spark-submit jobs/score_rows.py --config configs/criteo.yaml``."""

from fieldwise.jobs.cli import door

if __name__ == "__main__":
    door("score-rows", __file__)
