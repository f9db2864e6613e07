"""Metrics of a model on snapshots: ``python jobs/evaluate.py --config configs/movielens.yaml``."""

from fieldwise.jobs.cli import door

if __name__ == "__main__":
    door("evaluate", __file__)
